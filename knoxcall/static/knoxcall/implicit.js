// The implicit grant brings its token in the fragment, which no server sees (RFC 6749 §4.2.2). This takes it off the address bar
// and out of the history at once, hands it to the vault, and goes where the vault says. Without a fragment it starts the consent.
"use strict";

(function () {
  const fragment = window.location.hash.slice(1);
  const address = window.location.pathname;
  // Before anything else: what follows may take seconds, and a screen is easily photographed.
  window.history.replaceState(null, "", address);

  if (!fragment) {
    window.location.replace(address + "?start=1");
    return;
  }

  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  async function hand(triesLeft) {
    try {
      const answer = await fetch(address, {
        method: "POST",
        headers: { "Content-Type": "application/x-www-form-urlencoded" },
        body: fragment,
        credentials: "same-origin",
        redirect: "error",
        cache: "no-store",
      });
      if (answer.ok) {
        window.location.replace((await answer.json()).next);
        return;
      }
      if (answer.status !== 503) {
        triesLeft = 0;
      }
    } catch (failure) {
      // The network: worth another try. What failed is not told to anybody, for it may quote the fragment.
    }
    if (triesLeft > 0) {
      await pause(2000);
      await hand(triesLeft - 1);
      return;
    }
    document.getElementById("working").hidden = true;
    document.getElementById("failed").hidden = false;
  }

  hand(3);
})();
