//! What OpenSSL has and its binding lacks: external PSKs of TLS 1.3, the cipher suite while it is pending, and CRLs that
//! are not read from a file by OpenSSL itself.
//!
//! The only unsafe code of the project's own crates. Nothing in here panics, and each callback is wrapped so that a
//! panic would become a refusal: unwinding out of C aborts the process.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uchar};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use akma::KAf;
use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ssl::{SslCipherRef, SslContextBuilder, SslRef};
use openssl::x509::X509CrlRef;
use openssl::x509::store::X509StoreBuilderRef;
use openssl_sys::{EVP_MD, SSL, SSL_CIPHER, SSL_CTX, SSL_SESSION, SSL_SESSION_free, X509_CRL, X509_STORE};

use crate::psk::{client_psk, server_psk};

type FindSession = extern "C" fn(*mut SSL, *const c_uchar, usize, *mut *mut SSL_SESSION) -> c_int;
type UseSession =
    extern "C" fn(*mut SSL, *const EVP_MD, *mut *const c_uchar, *mut usize, *mut *mut SSL_SESSION) -> c_int;

// Signatures as in openssl/ssl.h of OpenSSL 3.6; all are part of its stable API since 1.1.1.
unsafe extern "C" {
    fn SSL_CTX_set_psk_find_session_callback(context: *mut SSL_CTX, callback: FindSession);
    fn SSL_CTX_set_psk_use_session_callback(context: *mut SSL_CTX, callback: UseSession);
    fn SSL_CTX_use_psk_identity_hint(context: *mut SSL_CTX, hint: *const c_char) -> c_int;
    fn SSL_SESSION_new() -> *mut SSL_SESSION;
    fn SSL_SESSION_set1_master_key(session: *mut SSL_SESSION, key: *const c_uchar, octets: usize) -> c_int;
    fn SSL_SESSION_set_cipher(session: *mut SSL_SESSION, cipher: *const SSL_CIPHER) -> c_int;
    fn SSL_SESSION_set_protocol_version(session: *mut SSL_SESSION, version: c_int) -> c_int;
    fn SSL_CIPHER_find(ssl: *mut SSL, suite: *const c_uchar) -> *const SSL_CIPHER;
    fn SSL_get_pending_cipher(ssl: *const SSL) -> *const SSL_CIPHER;
    fn X509_STORE_add_crl(store: *mut X509_STORE, crl: *mut X509_CRL) -> c_int;
}

/// TLS 1.3 connections of this context take their key from [`server_psk`]; TLS 1.2 ones send `hint`.
pub(crate) fn use_server_psk(context: &mut SslContextBuilder, hint: &CStr) -> Result<(), ErrorStack> {
    // SAFETY: the context is alive for the call; the callback is a plain function, valid for ever; OpenSSL copies
    // the hint, which is a C string by its type.
    let done = unsafe {
        SSL_CTX_set_psk_find_session_callback(context.as_ptr(), find_session);
        SSL_CTX_use_psk_identity_hint(context.as_ptr(), hint.as_ptr())
    };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// TLS 1.3 connections of this context take their identity and key from [`client_psk`].
pub(crate) fn use_client_psk(context: &mut SslContextBuilder) {
    // SAFETY: the context is alive for the call; the callback is a plain function, valid for ever.
    unsafe { SSL_CTX_set_psk_use_session_callback(context.as_ptr(), use_session) }
}

/// The cipher suite that a TLS 1.2 handshake has agreed upon but not switched to.
pub(crate) fn pending_cipher_suite(ssl: &SslRef) -> Option<u16> {
    // SAFETY: `ssl` is alive, and so is what it points to; a cipher, if any, is static data of OpenSSL.
    let cipher = unsafe {
        let cipher = SSL_get_pending_cipher(ssl.as_ptr());
        if cipher.is_null() {
            return None;
        }
        SslCipherRef::from_ptr(cipher.cast_mut())
    };
    Some(u16::from_be_bytes(cipher.protocol_id()))
}

/// Certificates that `crl` names no longer stand, once the store checks CRLs.
pub(crate) fn add_crl(store: &mut X509StoreBuilderRef, crl: &X509CrlRef) -> Result<(), ErrorStack> {
    // SAFETY: both are alive for the call; OpenSSL takes a reference of its own to the CRL.
    let done = unsafe { X509_STORE_add_crl(store.as_ptr(), crl.as_ptr()) };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Server, TLS 1.3: OpenSSL asks for the key of one offered identity. 1 without a session means "unknown".
extern "C" fn find_session(
    ssl: *mut SSL,
    identity: *const c_uchar,
    octets: usize,
    found: *mut *mut SSL_SESSION,
) -> c_int {
    let session = catch_unwind(AssertUnwindSafe(|| {
        if identity.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: OpenSSL passes a live SSL and `octets` readable octets, for the duration of this call.
        let (connection, identity) = unsafe { (SslRef::from_ptr(ssl), std::slice::from_raw_parts(identity, octets)) };
        match server_psk(connection).and_then(|psk| psk.key_of(identity)) {
            Some(key) => session_of(ssl, &key),
            None => ptr::null_mut(),
        }
    }))
    .unwrap_or(ptr::null_mut());
    // SAFETY: `found` is OpenSSL's out-parameter; it takes the session over.
    unsafe { *found = session };
    1
}

/// Client, TLS 1.3: OpenSSL asks for the identity and key to offer. 1 without a session means "none".
extern "C" fn use_session(
    ssl: *mut SSL,
    _hash: *const EVP_MD,
    identity: *mut *const c_uchar,
    octets: *mut usize,
    offered: *mut *mut SSL_SESSION,
) -> c_int {
    let (id, id_octets, session) = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: OpenSSL passes a live SSL for the duration of this call.
        let connection = unsafe { SslRef::from_ptr(ssl) };
        let psk = client_psk(connection)?;
        let key = psk.tls13_key()?;
        let session = session_of(ssl, &key);
        (!session.is_null()).then(|| (psk.identity().as_ptr(), psk.identity().len(), session))
    }))
    .ok()
    .flatten()
    .unwrap_or((ptr::null(), 0, ptr::null_mut()));
    // SAFETY: these are OpenSSL's out-parameters; it copies the identity before anything else can run (the octets
    // belong to the SSL's ex_data, which outlives this call and never changes), and takes the session over.
    unsafe {
        *identity = id;
        *octets = id_octets;
        *offered = session;
    }
    1
}

/// A session that stands for an external PSK bound to SHA-256 (RFC 8446 clause 4.2.11); null when memory is short.
fn session_of(ssl: *mut SSL, key: &KAf) -> *mut SSL_SESSION {
    let secret = key.expose();
    // SAFETY: `ssl` is alive (both callers have it from OpenSSL's callback); the suite is two octets, the key
    // `secret.len()`, and OpenSSL copies both; the session is ours alone until it is returned, and freed if not.
    unsafe {
        let cipher = SSL_CIPHER_find(ssl, TLS_AES_128_GCM_SHA256.as_ptr());
        let session = SSL_SESSION_new();
        if cipher.is_null() || session.is_null() {
            SSL_SESSION_free(session);
            return ptr::null_mut();
        }
        let whole = SSL_SESSION_set1_master_key(session, secret.as_ptr(), secret.len()) == 1
            && SSL_SESSION_set_cipher(session, cipher) == 1
            && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1;
        if !whole {
            SSL_SESSION_free(session);
            return ptr::null_mut();
        }
        session
    }
}

/// Any suite with SHA-256 would do: OpenSSL compares the hash, not the suite.
const TLS_AES_128_GCM_SHA256: [u8; 2] = [0x13, 0x01];
const TLS1_3_VERSION: c_int = 0x0304;
