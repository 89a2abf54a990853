//! AKMA and 5G primary authentication: derivations, identities and formats, no I/O
