//! The parameters of an authentication scheme (RFC 9110 clauses 11.2 to 11.4): `Digest name=token, name="quoted string"`.

use super::{DIGEST_HEADER_OCTETS_MAX, DigestError};

/// Parameters of one header.
const PARAMETERS_MAX: usize = 16;

/// Names in lower case, and values, each name once.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a header's value: one scheme, and its parameters. Empty list elements (RFC 9110 clause 5.6.1.2) are passed over.
    pub(super) fn parse(text: &str) -> Result<Self, DigestError> {
        if text.len() > DIGEST_HEADER_OCTETS_MAX {
            return Err(DigestError::Malformed("it is too long"));
        }
        let (scheme, mut rest) = text.trim_matches(BLANK).split_once(' ').ok_or(DigestError::OtherScheme)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(DigestError::OtherScheme);
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        loop {
            rest = rest.trim_start_matches(SEPARATORS);
            if rest.is_empty() {
                return Ok(Self(parameters));
            }
            let (name, after) = token(rest)?;
            let after = after.trim_start_matches(BLANK).strip_prefix('=').ok_or(DigestError::Malformed("no value"))?;
            let (value, after) = value(after.trim_start_matches(BLANK))?;
            let name = name.to_ascii_lowercase();
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(DigestError::Malformed("a parameter stands twice"));
            }
            if parameters.len() == PARAMETERS_MAX {
                return Err(DigestError::Malformed("too many parameters"));
            }
            parameters.push((name, value));
            rest = after.trim_start_matches(BLANK);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(DigestError::Malformed("no comma between parameters"));
            }
        }
    }

    /// Takes a parameter out.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Takes a parameter out that must be there, and hold something.
    pub(super) fn required(&mut self, name: &'static str) -> Result<String, DigestError> {
        self.take(name).filter(|value| !value.is_empty()).ok_or(DigestError::Missing(name))
    }
}

const BLANK: [char; 2] = [' ', '\t'];
const SEPARATORS: [char; 3] = [' ', '\t', ','];

/// A quoted string of this text, which holds printable ASCII only.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

fn value(text: &str) -> Result<(String, &str), DigestError> {
    match text.strip_prefix('"') {
        Some(inside) => quoted_string(inside),
        None => token(text).map(|(value, rest)| (value.to_owned(), rest)),
    }
}

/// What stands after an opening quotation mark, up to the closing one. ASCII only: neither A-KID nor FQDN holds more.
fn quoted_string(text: &str) -> Result<(String, &str), DigestError> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match characters.next() {
                Some((_, escaped)) if is_printable(escaped) => value.push(escaped),
                _ => return Err(DigestError::Malformed("an escape without a character")),
            },
            plain if is_printable(plain) => value.push(plain),
            _ => return Err(DigestError::Malformed("a character that is not printable ASCII")),
        }
    }
    Err(DigestError::Malformed("a quotation mark is not closed"))
}

fn is_printable(character: char) -> bool {
    character == '\t' || (' '..='~').contains(&character)
}

fn token(text: &str) -> Result<(&str, &str), DigestError> {
    let is_token = |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
    let end = text.find(|character| !is_token(character)).unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((token, rest)) if !token.is_empty() => Ok((token, rest)),
        _ => Err(DigestError::Malformed("no token")),
    }
}
