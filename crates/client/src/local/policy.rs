//! Which applications there are, how they prove who they are, and what each may do (TS 23.554 clause 8.11.1: the client
//! authorises the Application Client by what is configured).
//!
//! Nothing is allowed that is not written: an application without destinations sends nothing.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use message::{Address, AddressType, ApplicationId, Priority};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{limits::LocalLimits, tag::Tag};
use crate::error::ClientError;

/// Shortest token, in octets: what is shorter can be guessed.
pub const TOKEN_OCTETS_MIN: usize = 16;
/// Longest token, in octets.
pub const TOKEN_OCTETS_MAX: usize = 256;
/// The Application ID of the entry that stands for every application which has none of its own.
const ANY: &str = "*";

/// The applications of one client and the limits they share: an applications file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApplicationsConfig {
    /// `[[application]]`
    #[serde(rename = "application")]
    pub applications: Vec<ApplicationConfig>,
    /// `[limits]`
    pub limits: LocalLimits,
}

/// One application: who it is and what it may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ApplicationConfig {
    /// Its Application ID; `*` stands for every one that has no entry of its own.
    pub application_id: ApplicationId,
    /// What it has to present when it registers.
    #[serde(default)]
    pub token: Option<ApplicationToken>,
    /// The users it may run as, by the operating system's word (`SO_PEERCRED`). With a token, both must hold.
    #[serde(default)]
    pub uids: Vec<u32>,
    /// Where it may send to.
    #[serde(default)]
    pub destinations: Vec<DestinationPattern>,
    /// Application IDs besides its own that it may name at the recipient; `*` for any.
    #[serde(default)]
    pub recipient_applications: Vec<ApplicationId>,
    /// Whether it may send with priority HIGH.
    #[serde(default)]
    pub high_priority: bool,
    /// Messages a second that it may send on average.
    #[serde(default = "default_messages_per_second")]
    pub messages_per_second_max: u32,
    /// Messages that it may send at once before that counts.
    #[serde(default = "default_burst")]
    pub burst_max: u32,
    /// What happens to messages for it while it is not there.
    #[serde(default)]
    pub when_away: WhenAway,
    /// Whether it gets the messages that name no application.
    #[serde(default)]
    pub takes_unnamed: bool,
}

/// What happens to messages for an application that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenAway {
    /// They are not accepted: the server keeps those that it may, and tries again.
    #[default]
    PutOff,
    /// They are refused for good, and their senders told.
    Refuse,
}

fn default_messages_per_second() -> u32 {
    20
}

fn default_burst() -> u32 {
    40
}

impl ApplicationConfig {
    /// An application that may do nothing yet, and nobody may be.
    #[must_use]
    pub fn new(application_id: ApplicationId) -> Self {
        Self {
            application_id,
            token: None,
            uids: Vec::new(),
            destinations: Vec::new(),
            recipient_applications: Vec::new(),
            high_priority: false,
            messages_per_second_max: default_messages_per_second(),
            burst_max: default_burst(),
            when_away: WhenAway::default(),
            takes_unnamed: false,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.token.is_none() && self.uids.is_empty() {
            return Err("needs a token or uids, or nobody can be it".into());
        }
        if self.messages_per_second_max == 0 || self.burst_max == 0 {
            return Err("messages_per_second_max and burst_max must not be zero".into());
        }
        if self.application_id.as_str() == ANY && self.takes_unnamed {
            return Err("only one application takes what names none, and * is many".into());
        }
        Ok(())
    }

    /// Whether a peer that runs as `uid` and presents `credential` is this application. Takes the same time whatever the
    /// credential is.
    pub(super) fn is_proven(&self, uid: Option<u32>, credential: Option<&str>) -> bool {
        let user = self.uids.is_empty() || uid.is_some_and(|uid| self.uids.contains(&uid));
        let token = match &self.token {
            Some(token) => credential.is_some_and(|credential| token.is(credential)),
            None => !self.uids.is_empty(),
        };
        user & token
    }

    pub(super) fn may_send_to(&self, destination: &Address) -> bool {
        self.destinations.iter().any(|pattern| pattern.matches(destination))
    }

    pub(super) fn may_send_with(&self, priority: Priority) -> bool {
        self.high_priority || priority != Priority::High
    }

    /// Whether `own`, which this entry is for, may name the application `named` at the recipient.
    pub(super) fn may_name(&self, own: &ApplicationId, named: &ApplicationId) -> bool {
        own == named || self.recipient_applications.iter().any(|allowed| allowed == named || allowed.as_str() == ANY)
    }
}

impl ApplicationsConfig {
    /// What holds where nothing is configured: programs of the user `uid` may be any application and send anything to
    /// anybody. They could as well read the files of the client, which are that user's.
    #[must_use]
    pub fn of_user(uid: u32) -> Self {
        let any = |text: &str| text.parse().into_iter();
        let applications = any(ANY)
            .map(|application_id| ApplicationConfig {
                uids: vec![uid],
                destinations: any_destination(),
                recipient_applications: any(ANY).collect(),
                high_priority: true,
                ..ApplicationConfig::new(application_id)
            })
            .collect();
        Self { applications, limits: LocalLimits::default() }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ClientError::Configuration`], which names the entry.
    pub fn check(&self) -> Result<(), ClientError> {
        Policy::new(self.clone()).map(|_| ())
    }
}

/// Who may send where, in the form that it is asked for.
#[derive(Debug)]
pub(super) struct Policy {
    named: HashMap<ApplicationId, Arc<ApplicationConfig>>,
    tags: HashMap<Tag, ApplicationId>,
    any: Option<Arc<ApplicationConfig>>,
    unnamed: Option<ApplicationId>,
    pub(super) limits: LocalLimits,
}

impl Policy {
    pub(super) fn new(config: ApplicationsConfig) -> Result<Self, ClientError> {
        let refused = |id: &ApplicationId, reason: &str| {
            Err(ClientError::Configuration(format!("application {}: {reason}", id.as_str())))
        };
        if let Some(member) = config.limits.zero_member() {
            return Err(ClientError::Configuration(format!("limits.{member} must not be zero")));
        }
        let mut policy =
            Self { named: HashMap::new(), tags: HashMap::new(), any: None, unnamed: None, limits: config.limits };
        for application in config.applications {
            let id = application.application_id.clone();
            if let Err(reason) = application.check() {
                return refused(&id, &reason);
            }
            if application.takes_unnamed && policy.unnamed.replace(id.clone()).is_some() {
                return refused(&id, "another one takes what names no application");
            }
            let application = Arc::new(application);
            if id.as_str() == ANY {
                if policy.any.replace(application).is_some() {
                    return refused(&id, "is there twice");
                }
            } else if policy.named.insert(id.clone(), application).is_some() {
                return refused(&id, "is there twice");
            } else if policy.tags.insert(Tag::of(&id), id.clone()).is_some() {
                return refused(&id, "cannot be told apart from another one; choose another Application ID");
            }
        }
        Ok(policy)
    }

    /// What holds for an application; none if it has no entry and none is for any.
    pub(super) fn of(&self, application: &ApplicationId) -> Option<&Arc<ApplicationConfig>> {
        // The name of the entry for any is nobody's name.
        if application.as_str() == ANY {
            return None;
        }
        self.named.get(application).or(self.any.as_ref())
    }

    /// Which application has the tag, if it is configured by name.
    pub(super) fn tagged(&self, tag: Tag) -> Option<&ApplicationId> {
        self.tags.get(&tag)
    }

    /// What happens to what is for an application that only the entry for any could be.
    pub(super) fn any(&self) -> Option<&ApplicationConfig> {
        self.any.as_deref()
    }

    /// Which application gets what names none.
    pub(super) fn unnamed(&self) -> Option<&ApplicationId> {
        self.unnamed.as_ref()
    }
}

/// What an application presents to prove itself: [`TOKEN_OCTETS_MIN`] to [`TOKEN_OCTETS_MAX`] printable octets. Kept as a
/// digest, compared in constant time, and never printed.
#[derive(Clone)]
pub struct ApplicationToken([u8; 32]);

impl ApplicationToken {
    fn is(&self, credential: &str) -> bool {
        digest(credential).ct_eq(&self.0).into()
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl FromStr for ApplicationToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !(TOKEN_OCTETS_MIN..=TOKEN_OCTETS_MAX).contains(&text.len()) {
            return Err("a token has 16 to 256 octets");
        }
        if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err("a token has printable ASCII without space only");
        }
        Ok(Self(digest(text)))
    }
}

impl fmt::Debug for ApplicationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApplicationToken(..)")
    }
}

impl<'de> Deserialize<'de> for ApplicationToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokenVisitor)
    }
}

/// Reads a token. What is no text would be repeated in the error, so it is taken and refused without.
struct TokenVisitor;

impl serde::de::Visitor<'_> for TokenVisitor {
    type Value = ApplicationToken;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token as text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ApplicationToken, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<ApplicationToken, E> {
        self.visit_str(&Zeroizing::new(text))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<ApplicationToken, E> {
        Err(E::custom("a token is text: write it in quotes"))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<ApplicationToken, E> {
        Err(E::custom("a token is text: write it in quotes"))
    }
}

/// Where an application may send to: `UE:meter-1@lab.example`, `AS:*@lab.example`, `TOPIC:alerts/*`, `GROUP:*`. One `*`
/// stands for any text; without the type, as `*`, for anything at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationPattern {
    /// None: any type.
    addr_type: Option<AddressType>,
    before: String,
    /// What follows the `*`; none if there is no `*`.
    after: Option<String>,
}

impl DestinationPattern {
    /// Whether the address is one of those meant.
    #[must_use]
    pub fn matches(&self, address: &Address) -> bool {
        if self.addr_type.as_ref().is_some_and(|addr_type| *addr_type != address.addr_type) {
            return false;
        }
        let name = address.addr.as_str();
        match &self.after {
            None => name == self.before,
            Some(after) => {
                name.len() >= self.before.len() + after.len()
                    && name.starts_with(self.before.as_str())
                    && name.ends_with(after.as_str())
            }
        }
    }
}

impl FromStr for DestinationPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANY {
            return Ok(Self { addr_type: None, before: String::new(), after: Some(String::new()) });
        }
        let wrong =
            || format!("`{text}` is no destination; write UE:meter-1@lab.example, AS:*@lab.example or TOPIC:a/*");
        let (addr_type, name) = text.split_once(':').ok_or_else(wrong)?;
        let addr_type: AddressType = addr_type.parse().map_err(|_| wrong())?;
        if matches!(addr_type, AddressType::Other(_)) || name.is_empty() {
            return Err(wrong());
        }
        let (before, after) = match name.split_once('*') {
            Some((_, after)) if after.contains('*') => return Err(format!("`{text}` has more than one *")),
            Some((before, after)) => (before, Some(after.to_owned())),
            None => (name, None),
        };
        Ok(Self { addr_type: Some(addr_type), before: before.to_owned(), after })
    }
}

impl<'de> Deserialize<'de> for DestinationPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn any_destination() -> Vec<DestinationPattern> {
    ANY.parse().into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn policy(text: &str) -> Result<Policy, ClientError> {
        Policy::new(toml::from_str(text).unwrap())
    }

    fn address(text: &str) -> Address {
        let (addr_type, addr) = text.split_once(':').unwrap();
        Address { addr_type: addr_type.parse().unwrap(), addr: addr.parse().unwrap() }
    }

    #[test]
    fn an_application_may_do_only_what_is_written() {
        let policy = policy("[[application]]\napplication_id = \"a\"\nuids = [7]").unwrap();
        let own: ApplicationId = "a".parse().unwrap();
        let other: ApplicationId = "b".parse().unwrap();
        let a = policy.of(&own).unwrap();
        assert!(!a.may_send_to(&address("UE:x")) && !a.may_send_with(Priority::High));
        assert!(a.may_send_with(Priority::Middle) && a.may_name(&own, &own) && !a.may_name(&own, &other));
        assert_eq!(a.when_away, WhenAway::PutOff);
        assert!(policy.of(&other).is_none() && policy.of(&"*".parse().unwrap()).is_none());
        assert!(policy.unnamed().is_none());
    }

    #[test]
    fn the_entry_for_any_is_for_those_without_their_own() {
        let policy = policy(
            "[[application]]\napplication_id = \"*\"\nuids = [7]\nhigh_priority = true\n\
             [[application]]\napplication_id = \"a\"\nuids = [8]",
        )
        .unwrap();
        assert!(policy.of(&"b".parse().unwrap()).unwrap().high_priority);
        assert!(!policy.of(&"a".parse().unwrap()).unwrap().high_priority);
        assert!(policy.of(&"*".parse().unwrap()).is_none(), "nobody can call itself any");
    }

    #[test]
    fn what_proves_an_application_must_hold_as_a_whole() {
        let config = |token: bool, uids: &[u32]| ApplicationConfig {
            token: token.then(|| TOKEN.parse().unwrap()),
            uids: uids.to_vec(),
            ..ApplicationConfig::new("a".parse().unwrap())
        };
        assert!(config(true, &[]).is_proven(None, Some(TOKEN)));
        assert!(!config(true, &[]).is_proven(Some(7), None));
        assert!(!config(true, &[]).is_proven(Some(7), Some("0123456789abcdeg")));
        assert!(config(false, &[7, 8]).is_proven(Some(8), None));
        assert!(config(false, &[7]).is_proven(Some(7), Some("is not asked for")));
        assert!(!config(false, &[7]).is_proven(Some(8), None) && !config(false, &[7]).is_proven(None, None));
        assert!(config(true, &[7]).is_proven(Some(7), Some(TOKEN)));
        assert!(!config(true, &[7]).is_proven(Some(8), Some(TOKEN)));
        assert!(!config(true, &[7]).is_proven(Some(7), None));
        assert!(!config(false, &[]).is_proven(Some(7), Some("")), "who cannot prove anything is nobody");
        assert!(!format!("{:?}", config(true, &[])).contains(TOKEN));
    }

    #[test]
    fn entries_that_cannot_work_are_refused_by_name() {
        for (text, reason) in [
            ("[[application]]\napplication_id = \"a\"", "needs a token or uids"),
            ("[[application]]\napplication_id = \"a\"\nuids = [1]\nburst_max = 0", "must not be zero"),
            ("[[application]]\napplication_id = \"*\"\nuids = [1]\ntakes_unnamed = true", "is many"),
            (
                "[[application]]\napplication_id = \"a\"\nuids = [1]\n[[application]]\napplication_id = \"a\"\nuids = [1]",
                "is there twice",
            ),
            (
                "[[application]]\napplication_id = \"a\"\nuids = [1]\ntakes_unnamed = true\n\
                 [[application]]\napplication_id = \"b\"\nuids = [1]\ntakes_unnamed = true",
                "another one takes",
            ),
            ("[limits]\nconnections_max = 0", "limits.connections_max"),
        ] {
            let error = policy(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let text = "[[application]]\napplication_id = \"a\"\ntoken = 1234567890123456";
        let error = toml::from_str::<ApplicationsConfig>(text).unwrap_err();
        assert_eq!(error.message(), "a token is text: write it in quotes");
        for wrong in [
            "[[application]]\napplication_id = \"a\"\ntoken = \"short\"",
            "[[application]]\napplication_id = \"a\"\nuids = [1]\ndestinations = [\"meter-1\"]",
            "[[application]]\napplication_id = \"a\"\nuids = [1]\ndestination = []",
        ] {
            assert!(toml::from_str::<ApplicationsConfig>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_match_type_and_name() {
        let matches = |pattern: &str, to: &str| pattern.parse::<DestinationPattern>().unwrap().matches(&address(to));
        assert!(matches("UE:meter-1@lab.example", "UE:meter-1@lab.example"));
        assert!(!matches("UE:meter-1@lab.example", "AS:meter-1@lab.example"));
        assert!(matches("AS:*@lab.example", "AS:billing@lab.example"));
        assert!(!matches("AS:*@lab.example", "AS:billing@lab.example.evil"));
        assert!(matches("TOPIC:alerts/*", "TOPIC:alerts/fire") && !matches("TOPIC:alerts/*", "TOPIC:alert"));
        assert!(!matches("UE:ab*ba", "UE:aba"), "what stands before and after does not overlap");
        assert!(matches("*", "BC:area") && matches("GROUP:*", "GROUP:g") && !matches("GROUP:*", "BC:g"));
        for wrong in ["", "UE:", "meter", "XX:a", "UE:a*b*c"] {
            assert!(wrong.parse::<DestinationPattern>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_pattern_without_a_star_matches_its_own_text_only(name in "[a-z@.]{1,12}", other in "[a-z@.]{1,12}") {
            let pattern: DestinationPattern = format!("UE:{name}").parse().unwrap();
            let to = format!("UE:{other}");
            prop_assert_eq!(pattern.matches(&address(&to)), name == other);
        }

        #[test]
        fn any_text_is_a_pattern_or_is_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<DestinationPattern>();
        }
    }
}
