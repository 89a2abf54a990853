//! The UE configuration document (TS 24.538 clause 7.2): who the client is and where its server is.
//!
//! ```xml
//! <seal-UE-configuration xmlns="urn:3gpp:ns:seal:MSGin5GUEConfig:1.0">
//!   <on-network>
//!     <MSGin5G-Server-address>coaps+tcp://msgin5g.example.com:5684/msgin5g</MSGin5G-Server-address>
//!     <MSGin5G-UE-Service-id>meter-7@example.com</MSGin5G-UE-Service-id>
//!     <Segment-size>2048</Segment-size>
//!   </on-network>
//! </seal-UE-configuration>
//! ```
//!
//! Elements are told by their local names. Which namespace which element has is not to be had from the text that we know,
//! and the published schema's `targetNamespace` has a blank in it (clause 7.2.4.2), so that a writer may have copied it:
//! the namespace is not looked at. INFERRED: the form of the server's address, and the address to connect to instead of
//! looking its name up, which is an element of ours in `anyExt`.

use std::fmt;

use akma::Fqdn;
use message::UeServiceId;
use roxmltree::{Document, Node, ParsingOptions};
use thiserror::Error;

/// Largest document that is read, in octets.
pub const UE_CONFIGURATION_OCTETS_MAX: usize = 16_384;
/// Most elements, texts and attributes of a document.
const NODES_MAX: u32 = 512;

/// CoAP over TCP with TLS (RFC 8323 clause 8.2).
const SCHEME: &str = "coaps+tcp://";
/// Its port where the address names none (RFC 8323 clause 8.2).
const PORT_DEFAULT: u16 = 5684;
/// Longest address, in octets.
const ADDRESS_OCTETS_MAX: usize = 512;

const ROOT: &str = "seal-UE-configuration";
const ON_NETWORK: &str = "on-network";
const SERVER_ADDRESS: &str = "MSGin5G-Server-address";
const UE_SERVICE_ID: &str = "MSGin5G-UE-Service-id";
const SEGMENT_SIZE: &str = "Segment-size";
const EXTENSION: &str = "anyExt";
const CONNECT_ADDRESS: &str = "Connect-address";

/// What a UE has to know to be an MSGin5G Client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UeConfiguration {
    /// Where the server is.
    pub server: ServerAddress,
    /// Who the client is.
    pub ue_service_id: UeServiceId,
    /// Supported Maximum MSGin5G segment size, in octets of payload.
    pub segment_size: Option<u32>,
}

/// The server's address, as `coaps+tcp://FQDN[:PORT]/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerAddress {
    /// Its name: for SNI, and part of AF_ID.
    pub fqdn: Fqdn,
    /// Its port.
    pub port: u16,
    /// Uri-Path of its one resource, without a slash at its ends.
    pub path: String,
    /// Where to connect to, `host:port`, where that is not the name itself.
    pub connect: Option<String>,
}

impl ServerAddress {
    /// Where to connect to, `host:port`.
    #[must_use]
    pub fn socket(&self) -> String {
        self.connect.clone().unwrap_or_else(|| format!("{}:{}", self.fqdn.as_str(), self.port))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}:{}/{}", self.fqdn.as_str(), self.port, self.path)
    }
}

/// Why a document cannot be used. Holds nothing of its text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UeConfigurationError {
    /// Larger than [`UE_CONFIGURATION_OCTETS_MAX`].
    #[error("the UE configuration document has {octets} octets, at most {octets_max} are read")]
    TooLarge {
        /// What it has.
        octets: usize,
        /// What is allowed.
        octets_max: usize,
    },
    /// No well-formed XML in UTF-8, or one with a document type declaration, which could make it expand.
    #[error("the UE configuration document is no XML that is read here (line {line}, column {column})")]
    NotXml {
        /// Where reading stopped, from 1; 0 if the text as a whole is not UTF-8.
        line: u32,
        /// Where reading stopped.
        column: u32,
    },
    /// XML, but no UE configuration document.
    #[error("no UE configuration document: it begins with another element")]
    AnotherDocument,
    /// An element is missing.
    #[error("the UE configuration document has no {0}")]
    Missing(&'static str),
    /// An element is there twice, so that nobody can say which one holds.
    #[error("the UE configuration document has {0} twice")]
    Duplicate(&'static str),
    /// An element has a value that it must not have.
    #[error("the UE configuration document has a {0} that cannot be used")]
    Invalid(&'static str),
}

impl UeConfiguration {
    /// Reads a document. Elements that are not known are passed over.
    ///
    /// # Errors
    /// [`UeConfigurationError`].
    pub fn parse(document: &[u8]) -> Result<Self, UeConfigurationError> {
        if document.len() > UE_CONFIGURATION_OCTETS_MAX {
            let octets_max = UE_CONFIGURATION_OCTETS_MAX;
            return Err(UeConfigurationError::TooLarge { octets: document.len(), octets_max });
        }
        let not_utf8 = UeConfigurationError::NotXml { line: 0, column: 0 };
        let text = std::str::from_utf8(document).map_err(|_| not_utf8)?;
        // Without a document type declaration there are no entities that could expand, and none from elsewhere.
        let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options).map_err(|error| {
            let at = error.pos();
            UeConfigurationError::NotXml { line: at.row, column: at.col }
        })?;
        let root = document.root_element();
        if root.tag_name().name() != ROOT {
            return Err(UeConfigurationError::AnotherDocument);
        }
        let on_network = one(root, ON_NETWORK)?.ok_or(UeConfigurationError::Missing(ON_NETWORK))?;
        let mut server = value(on_network, SERVER_ADDRESS, server_address)?;
        server.connect = match one(on_network, EXTENSION)? {
            Some(extension) => optional(extension, CONNECT_ADDRESS, connect_address)?,
            None => None,
        };
        let ue_service_id = value(on_network, UE_SERVICE_ID, |text| text.parse().ok())?;
        let positive = |text: &str| text.parse().ok().filter(|size| *size > 0);
        let segment_size = optional(on_network, SEGMENT_SIZE, positive)?;
        Ok(Self { server, ue_service_id, segment_size })
    }
}

/// The one child of that local name.
fn one<'a, 'input>(
    parent: Node<'a, 'input>,
    name: &'static str,
) -> Result<Option<Node<'a, 'input>>, UeConfigurationError> {
    let mut found = parent.children().filter(|node| node.is_element() && node.tag_name().name() == name);
    let first = found.next();
    if found.next().is_some() { Err(UeConfigurationError::Duplicate(name)) } else { Ok(first) }
}

fn optional<T>(
    parent: Node<'_, '_>,
    name: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, UeConfigurationError> {
    let Some(node) = one(parent, name)? else { return Ok(None) };
    // An element of text alone; a comment would cut it in two.
    let alone = node.children().count() == 1;
    let text = node.text().filter(|_| alone).map(str::trim);
    text.and_then(read).map(Some).ok_or(UeConfigurationError::Invalid(name))
}

fn value<T>(
    parent: Node<'_, '_>,
    name: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, UeConfigurationError> {
    optional(parent, name, read)?.ok_or(UeConfigurationError::Missing(name))
}

fn server_address(text: &str) -> Option<ServerAddress> {
    if text.len() > ADDRESS_OCTETS_MAX {
        return None;
    }
    let scheme = text.get(..SCHEME.len())?;
    let rest = text.get(SCHEME.len()..).filter(|_| scheme.eq_ignore_ascii_case(SCHEME))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (fqdn, port) = match authority.rsplit_once(':') {
        Some((fqdn, port)) => (fqdn, port_number(port)?),
        None => (authority, PORT_DEFAULT),
    };
    let path = path.trim_matches('/');
    // What would have to be decoded, or is no path: whoever writes an address for small devices writes it plainly.
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&octet);
    if path.is_empty() || !path.bytes().all(plain) || path.split('/').any(|segment| matches!(segment, "" | "." | ".."))
    {
        return None;
    }
    Some(ServerAddress { fqdn: fqdn.parse().ok()?, port, path: path.to_owned(), connect: None })
}

fn connect_address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    port_number(port)?;
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._:[]".contains(&octet);
    (!host.is_empty() && text.len() <= ADDRESS_OCTETS_MAX && host.bytes().all(plain)).then(|| text.to_owned())
}

fn port_number(text: &str) -> Option<u16> {
    // Digits alone: parsing would take a sign, too.
    if !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn document(content: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<seal-UE-configuration \
             xmlns=\"urn:3gpp:ns:seal:MSGin5GUEConfig:1.0\">\n<on-network>{content}</on-network></seal-UE-configuration>"
        )
    }

    fn element(name: &str, text: &str) -> String {
        format!("<{name}>{text}</{name}>")
    }

    fn whole(address: &str, more: &str) -> Result<UeConfiguration, UeConfigurationError> {
        let (address, id) = (element(SERVER_ADDRESS, address), element(UE_SERVICE_ID, "meter-7@lab.example"));
        UeConfiguration::parse(document(&format!("\n {address}\n {id}\n {more}\n")).as_bytes())
    }

    const ADDRESS: &str = "coaps+tcp://msgin5g.example.com/msgin5g";

    #[test]
    fn a_whole_document_is_read() {
        let more = "<Segment-size> 1024 </Segment-size><Later a=\"b\"><x/></Later>\
            <anyExt><Connect-address xmlns=\"urn:msgin5g:ue-configuration:1.0\">192.0.2.1:5685</Connect-address></anyExt>";
        let read = whole("coaps+tcp://MSGin5G.example.com:5690/iot/messages/", more).unwrap();
        assert_eq!(read.server.fqdn.as_str(), "msgin5g.example.com");
        assert_eq!((read.server.port, read.server.path.as_str()), (5690, "iot/messages"));
        assert_eq!(read.server.socket(), "192.0.2.1:5685");
        assert_eq!(read.ue_service_id.as_str(), "meter-7@lab.example");
        assert_eq!(read.segment_size, Some(1024));
        let least = whole(ADDRESS, "").unwrap();
        assert_eq!((least.server.socket().as_str(), least.segment_size), ("msgin5g.example.com:5684", None));
        assert_eq!(least.server.to_string(), "coaps+tcp://msgin5g.example.com:5684/msgin5g");
    }

    #[test]
    fn the_blank_of_the_published_schema_and_prefixes_do_no_harm() {
        let text = document(&format!("{}{}", element(SERVER_ADDRESS, ADDRESS), element(UE_SERVICE_ID, "a@b")));
        let blank = text.replace("seal:MSGin5GUEConfig", "seal: MSGin5GUEConfig");
        assert_eq!(UeConfiguration::parse(blank.as_bytes()), UeConfiguration::parse(text.as_bytes()));
        let none = text.replace(" xmlns=\"urn:3gpp:ns:seal:MSGin5GUEConfig:1.0\"", "");
        assert_eq!(UeConfiguration::parse(none.as_bytes()), UeConfiguration::parse(text.as_bytes()));
        let prefixed = "<s:seal-UE-configuration xmlns:s=\"urn:s\" xmlns:m=\"urn:m\"><s:on-network>\
            <m:MSGin5G-Server-address>coaps+tcp://msgin5g.example.com/msgin5g</m:MSGin5G-Server-address>\
            <m:MSGin5G-UE-Service-id>a@b</m:MSGin5G-UE-Service-id></s:on-network></s:seal-UE-configuration>";
        assert_eq!(UeConfiguration::parse(prefixed.as_bytes()), UeConfiguration::parse(text.as_bytes()));
    }

    #[test]
    fn what_is_missing_doubled_or_unusable_is_named() {
        use UeConfigurationError::{Duplicate, Invalid, Missing};
        let parse = |content: &str| UeConfiguration::parse(document(content).as_bytes());
        assert_eq!(parse(&element(UE_SERVICE_ID, "a")), Err(Missing(SERVER_ADDRESS)));
        assert_eq!(parse(&element(SERVER_ADDRESS, ADDRESS)), Err(Missing(UE_SERVICE_ID)));
        assert_eq!(whole(ADDRESS, &element(UE_SERVICE_ID, "b")), Err(Duplicate(UE_SERVICE_ID)));
        for size in ["0", "-1", "many", "", "99999999999"] {
            assert_eq!(whole(ADDRESS, &element(SEGMENT_SIZE, size)), Err(Invalid(SEGMENT_SIZE)), "{size}");
        }
        for address in [
            "",
            "msgin5g.example.com",
            "coap://msgin5g.example.com/msgin5g",
            "coaps+tcp:///msgin5g",
            "coaps+tcp://msgin5g.example.com",
            "coaps+tcp://msgin5g.example.com:0/msgin5g",
            "coaps+tcp://msgin5g.example.com:+1/msgin5g",
            "coaps+tcp://user@msgin5g.example.com/msgin5g",
            "coaps+tcp://msgin5g.example.com/a/../b",
            "coaps+tcp://msgin5g.example.com/a%2e",
            "coaps+tcp://msgin5g.example.com/a?b",
        ] {
            assert_eq!(whole(address, ""), Err(Invalid(SERVER_ADDRESS)), "{address}");
        }
        for address in ["192.0.2.1", ":1", "a b:1", "host:0", "host:65536"] {
            let extension = element(EXTENSION, &element(CONNECT_ADDRESS, address));
            assert_eq!(whole(ADDRESS, &extension), Err(Invalid(CONNECT_ADDRESS)), "{address}");
        }
        let cut = whole("coaps+tcp://msgin5g.example.com<!-- -->.evil.example/msgin5g", "");
        assert_eq!(cut, Err(Invalid(SERVER_ADDRESS)), "a comment cuts no value short");
        assert_eq!(UeConfiguration::parse(b"<other/>"), Err(UeConfigurationError::AnotherDocument));
        let empty = UeConfiguration::parse(b"<seal-UE-configuration/>");
        assert_eq!(empty, Err(Missing(ON_NETWORK)));
    }

    #[test]
    fn nothing_that_expands_or_is_large_or_deep_is_read() {
        let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]><seal-UE-configuration>&b;</seal-UE-configuration>";
        assert!(matches!(UeConfiguration::parse(laughs.as_bytes()), Err(UeConfigurationError::NotXml { .. })));
        let outside = "<!DOCTYPE l [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><seal-UE-configuration>&a;</seal-UE-configuration>";
        assert!(matches!(UeConfiguration::parse(outside.as_bytes()), Err(UeConfigurationError::NotXml { .. })));
        let large = vec![b' '; UE_CONFIGURATION_OCTETS_MAX + 1];
        assert!(matches!(UeConfiguration::parse(&large), Err(UeConfigurationError::TooLarge { .. })));
        let deep = "<a>".repeat(5_000);
        assert!(matches!(UeConfiguration::parse(deep.as_bytes()), Err(UeConfigurationError::NotXml { .. })));
        let many = document(&"<a/>".repeat(3_000));
        assert!(matches!(UeConfiguration::parse(many.as_bytes()), Err(UeConfigurationError::NotXml { .. })));
        let attributes: String = (0..1_000).map(|number| format!(" a{number}=\"\"")).collect();
        let _ = UeConfiguration::parse(format!("<seal-UE-configuration{attributes}/>").as_bytes());
        assert!(UeConfiguration::parse(&[0xff, 0xfe]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(
            host in "[a-z][a-z0-9]{0,10}\\.[a-z]{2,5}", port in 1_u16.., path in "[a-z0-9]{1,10}(/[a-z0-9]{1,5}){0,2}",
            id in "[!-;=?-~]{1,40}", size in proptest::option::of(1_u32..),
        ) {
            let id = id.replace('&', "+");
            let size_element = size.map(|size| element(SEGMENT_SIZE, &size.to_string())).unwrap_or_default();
            let address = format!("coaps+tcp://{host}:{port}/{path}");
            let text = document(&format!("{}{}{size_element}", element(SERVER_ADDRESS, &address), element(UE_SERVICE_ID, &id)));
            let read = UeConfiguration::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(read.server.to_string(), address);
            prop_assert_eq!((read.ue_service_id.as_str(), read.segment_size), (id.as_str(), size));
        }

        #[test]
        fn nothing_breaks_the_reader(octets in proptest::collection::vec(any::<u8>(), 0..300), text in "[<>/!?\\[\\]a-b \"=&;]{0,200}") {
            let _ = UeConfiguration::parse(&octets);
            let _ = UeConfiguration::parse(document(&text).as_bytes());
            let _ = UeConfiguration::parse(text.as_bytes());
        }

        #[test]
        fn a_document_cut_short_is_refused(cut in 1_usize..200) {
            let text = document(&format!("{}{}", element(SERVER_ADDRESS, ADDRESS), element(UE_SERVICE_ID, "a@b")));
            prop_assert!(UeConfiguration::parse(&text.as_bytes()[..text.len().saturating_sub(cut)]).is_err());
        }
    }
}
