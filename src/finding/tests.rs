//! A table of hosts and what is found on them.
