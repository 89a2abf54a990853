//! CoAP over reliable transports (RFC 8323), no I/O
