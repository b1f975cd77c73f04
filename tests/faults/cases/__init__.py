"""The fault suite: each fault as a function of a number of tries, shared by the short tests and the long form."""
