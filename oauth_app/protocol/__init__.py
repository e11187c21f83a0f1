"""The RFCs, without Django: requests built, answers read strictly, errors typed."""
