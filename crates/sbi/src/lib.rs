//! HTTP/2 with mutual TLS between network functions, and the 3GPP API types spoken over it
