//! The NF types in a certificate (RFC 9310): a bounded reading of DER, because no reviewed crate knows the extension.
//!
//! The certificate was verified before, so OpenSSL has read it once already; what is read here decides on nothing but
//! the names, and whatever is not as the RFC has it names nothing.

/// The NF types that a certificate in DER names; `None` where it has no such extension, or a malformed one.
///
/// At most 16 types of at most 32 characters are read; more is malformed.
#[must_use]
pub fn nf_types_of_certificate(certificate: &[u8]) -> Option<Vec<String>> {
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { ..., extensions [3] { SEQUENCE OF Extension } }, ... }
    let (to_be_signed, _) = element(SEQUENCE, only(SEQUENCE, certificate)?)?;
    let extensions = children(to_be_signed, FIELDS_MAX)?.into_iter().find(|(tag, _)| *tag == EXTENSIONS)?.1;
    let mut found = None;
    for (tag, extension) in children(only(SEQUENCE, extensions)?, EXTENSIONS_MAX)? {
        let (identifier, rest) = element(OBJECT_IDENTIFIER, extension)?;
        if tag != SEQUENCE {
            return None;
        }
        if identifier != ID_PE_NFTYPE {
            continue;
        }
        let rest = element(BOOLEAN, rest).map_or(rest, |(_critical, rest)| rest);
        // No extension may stand twice (RFC 5280 clause 4.2).
        if found.replace(only(OCTET_STRING, rest)?).is_some() {
            return None;
        }
    }
    nf_types(found?)
}

/// `NFTypes ::= SEQUENCE SIZE (1..MAX) OF IA5String (SIZE (1..32))`, the value of the extension.
fn nf_types(value: &[u8]) -> Option<Vec<String>> {
    let types: Vec<String> = children(only(SEQUENCE, value)?, NF_TYPES_MAX)?
        .into_iter()
        .map(|(tag, text)| {
            let readable = tag == IA5_STRING
                && (1..=NF_TYPE_OCTETS_MAX).contains(&text.len())
                && text.iter().all(u8::is_ascii_graphic);
            readable.then(|| String::from_utf8_lossy(text).into_owned())
        })
        .collect::<Option<_>>()?;
    (!types.is_empty()).then_some(types)
}

/// The elements one after the other in `input`, at most `most`.
fn children(mut input: &[u8], most: usize) -> Option<Vec<(u8, &[u8])>> {
    let mut found = Vec::new();
    while !input.is_empty() {
        if found.len() == most {
            return None;
        }
        let (tag, content, rest) = any_element(input)?;
        found.push((tag, content));
        input = rest;
    }
    Some(found)
}

/// The content of the one element that `input` is.
fn only(tag: u8, input: &[u8]) -> Option<&[u8]> {
    element(tag, input).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

/// The content of the element that `input` begins with, and what follows it.
fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    any_element(input).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// Tag, content, and what follows. DER only: one octet of tag, a definite length in as few octets as it takes.
fn any_element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, input) = input.split_first()?;
    let (&length, input) = input.split_first()?;
    if tag & HIGH_TAG_NUMBER == HIGH_TAG_NUMBER {
        return None;
    }
    let (length, input) = match length {
        0..=0x7F => (usize::from(length), input),
        0x81..=0x83 => {
            let (octets, input) = input.split_at_checked(usize::from(length & 0x7F))?;
            let value = octets.iter().fold(0, |value: usize, octet| value << 8 | usize::from(*octet));
            let shortest = if octets.len() == 1 { 0x80 } else { 1 << (8 * (octets.len() - 1)) };
            (Some(value).filter(|value| *value >= shortest)?, input)
        }
        _ => return None,
    };
    let (content, rest) = input.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// 1.3.6.1.5.5.7.1.34
const ID_PE_NFTYPE: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x22];
const NF_TYPES_MAX: usize = 16;
const NF_TYPE_OCTETS_MAX: usize = 32;
/// Members of TBSCertificate.
const FIELDS_MAX: usize = 10;
const EXTENSIONS_MAX: usize = 64;

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const IA5_STRING: u8 = 0x16;
const SEQUENCE: u8 = 0x30;
const EXTENSIONS: u8 = 0xA3;
const HIGH_TAG_NUMBER: u8 = 0x1F;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rcgen::{CertificateParams, CustomExtension, KeyPair};

    use super::*;

    fn certificate(extensions: &[&[u8]]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["nf.example.com".to_owned()]).unwrap();
        params.custom_extensions = extensions
            .iter()
            .map(|value| CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 34], value.to_vec()))
            .collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_types_of_the_extension_are_read_in_their_order() {
        let one = certificate(&[b"\x30\x05\x16\x03AMF"]);
        assert_eq!(nf_types_of_certificate(&one).unwrap(), ["AMF"]);
        let two = certificate(&[b"\x30\x0B\x16\x04AUSF\x16\x03UDM"]);
        assert_eq!(nf_types_of_certificate(&two).unwrap(), ["AUSF", "UDM"]);
        assert_eq!(nf_types_of_certificate(&certificate(&[])), None);
    }

    #[test]
    fn what_is_not_as_the_rfc_has_it_names_nothing() {
        let long = [&b"\x30\x23\x16\x21"[..], &[b'A'; 33]].concat();
        let many = [&b"\x30\x33"[..], &b"\x16\x01A".repeat(17)].concat();
        for malformed in [
            &b""[..],
            b"\x30\x00",
            b"\x30\x05\x0C\x03AMF",
            b"\x30\x05\x16\x03AM",
            b"\x30\x05\x16\x03AMF\x00",
            b"\x30\x06\x16\x03AMF\x05",
            b"\x30\x81\x05\x16\x03AMF",
            b"\x30\x80\x16\x03AMF\x00\x00",
            b"\x30\x02\x16\x00",
            b"\x30\x05\x16\x03A\nF",
            b"\x16\x03AMF",
            &long,
            &many,
        ] {
            assert_eq!(nf_types_of_certificate(&certificate(&[malformed])), None, "{malformed:?}");
        }
        let twice = certificate(&[b"\x30\x05\x16\x03AMF", b"\x30\x05\x16\x03UDM"]);
        assert_eq!(nf_types_of_certificate(&twice), None);
    }

    proptest! {
        #[test]
        fn no_octets_are_too_strange(octets in prop::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(nf_types_of_certificate(&octets).is_none_or(|types| types.len() <= 16));
        }

        #[test]
        fn a_broken_certificate_is_read_without_harm(at in 0_usize..600, octet: u8, cut in 0_usize..600) {
            let mut der = certificate(&[b"\x30\x0B\x16\x04AUSF\x16\x03UDM"]);
            if let Some(broken) = der.get_mut(at) {
                *broken = octet;
            }
            der.truncate(der.len().saturating_sub(cut / 2));
            if let Some(types) = nf_types_of_certificate(&der) {
                prop_assert!(types.iter().all(|name| (1..=32).contains(&name.len())));
            }
        }
    }
}
