"""How times are written on our pages: the locales' own forms leave out seconds, and leave day and month to guessing."""
