//! Signalling messages (RFC 8323 5): their options, which are numbered for each message apart.

use crate::code::Code;
use crate::error::StreamError;
use crate::frame::{Frame, OptionWriter, read_uint};
use crate::limits::{BASE_MESSAGE_SIZE, DIAGNOSTIC_OCTETS_MAX};

/// Max-Message-Size of CSM (RFC 8323 5.3.1).
const MAX_MESSAGE_SIZE: u16 = 2;
/// Block-Wise-Transfer of CSM (RFC 8323 5.3.2).
const BLOCK_WISE_TRANSFER: u16 = 4;
/// Custody of Ping and Pong (RFC 8323 5.4.1).
const CUSTODY: u16 = 2;
/// Alternative-Address of Release (RFC 8323 5.5).
const ALTERNATIVE_ADDRESS: u16 = 2;
/// Hold-Off of Release (RFC 8323 5.5).
const HOLD_OFF: u16 = 4;
/// Bad-CSM-Option of Abort (RFC 8323 5.6).
const BAD_CSM_OPTION: u16 = 2;

/// What the peer can do, as its CSMs have told so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) max_message_size: u32,
    pub(crate) block_wise_transfer: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { max_message_size: BASE_MESSAGE_SIZE, block_wise_transfer: false }
    }
}

/// Why a peer asks to end the connection in good order (RFC 8323 5.5), and what to do then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Where to connect instead, in order of preference: `host:port`, 1 to 255 octets each.
    pub alternative_addresses: Vec<String>,
    /// How long not to connect to the same server, in seconds, less than 2^24.
    pub hold_off_seconds: Option<u32>,
}

/// Goes over the options of a signalling message; `take` tells whether it knows one.
fn read<'a>(
    frame: &Frame<'a>,
    options_max: usize,
    mut take: impl FnMut(u16, &'a [u8]) -> bool,
) -> Result<&'a [u8], StreamError> {
    let mut options = frame.options();
    let mut count = 0;
    while let Some((number, value)) = options.next()? {
        count += 1;
        if count > options_max {
            return Err(StreamError::Malformed("too many options in a signalling message"));
        }
        // RFC 8323 5.2: elective and critical as RFC 7252 5.4.1 has it.
        if !take(number, value) && number & 1 == 1 {
            return Err(match frame.code {
                Code::CSM => StreamError::BadCsmOption { number },
                code => StreamError::BadSignalOption { code, number },
            });
        }
    }
    options.payload()
}

/// Takes over what a CSM changes; what it does not name stays (RFC 8323 5.3).
pub(crate) fn read_csm(
    frame: &Frame<'_>,
    options_max: usize,
    mut capabilities: Capabilities,
) -> Result<Capabilities, StreamError> {
    read(frame, options_max, |number, value| {
        match number {
            MAX_MESSAGE_SIZE => {
                if let Some(size) = read_uint(value, 4) {
                    capabilities.max_message_size = size;
                }
            }
            BLOCK_WISE_TRANSFER => capabilities.block_wise_transfer = true,
            _ => return false,
        }
        true
    })?;
    Ok(capabilities)
}

pub(crate) fn write_csm(options: &mut OptionWriter<'_>, max_message_size: u32) {
    options.uint(MAX_MESSAGE_SIZE, max_message_size);
}

/// Reads a Ping or Pong: whether it has the Custody option.
pub(crate) fn read_custody(frame: &Frame<'_>, options_max: usize) -> Result<bool, StreamError> {
    let mut custody = false;
    read(frame, options_max, |number, _| {
        custody |= number == CUSTODY;
        number == CUSTODY
    })?;
    Ok(custody)
}

pub(crate) fn write_custody(options: &mut OptionWriter<'_>, custody: bool) {
    if custody {
        options.octets(CUSTODY, &[]);
    }
}

pub(crate) fn read_release(frame: &Frame<'_>, options_max: usize) -> Result<Release, StreamError> {
    let mut release = Release::default();
    read(frame, options_max, |number, value| {
        match number {
            ALTERNATIVE_ADDRESS => {
                // An address that is none is passed over: the option is elective.
                if let (1..=255, Ok(address)) = (value.len(), std::str::from_utf8(value)) {
                    release.alternative_addresses.push(address.to_owned());
                }
            }
            HOLD_OFF => release.hold_off_seconds = release.hold_off_seconds.or(read_uint(value, 3)),
            _ => return false,
        }
        true
    })?;
    Ok(release)
}

impl Release {
    pub(crate) fn check(&self) -> Result<(), StreamError> {
        let addresses_fit = self.alternative_addresses.iter().all(|address| (1..=255).contains(&address.len()));
        let hold_off_fits = self.hold_off_seconds.is_none_or(|seconds| seconds < 1 << 24);
        if addresses_fit && hold_off_fits { Ok(()) } else { Err(StreamError::InvalidOption) }
    }

    pub(crate) fn write_options(&self, options: &mut OptionWriter<'_>) {
        for address in &self.alternative_addresses {
            options.octets(ALTERNATIVE_ADDRESS, address.as_bytes());
        }
        if let Some(seconds) = self.hold_off_seconds {
            options.uint(HOLD_OFF, seconds);
        }
    }
}

/// Reads an Abort: the CSM option that the peer did not understand, and its words, cut to
/// [`DIAGNOSTIC_OCTETS_MAX`] and freed of control characters, since they end up in a log. An Abort is taken whatever is
/// wrong with it: the connection is over either way.
pub(crate) fn read_abort(frame: &Frame<'_>, options_max: usize) -> (Option<u16>, String) {
    let mut bad_csm_option = None;
    let payload = read(frame, options_max, |number, value| {
        if number == BAD_CSM_OPTION {
            bad_csm_option = read_uint(value, 2).map(|number| number as u16);
        }
        true
    })
    .unwrap_or_default();
    let cut = payload.get(..DIAGNOSTIC_OCTETS_MAX).unwrap_or(payload);
    let diagnostic = String::from_utf8_lossy(cut).chars().filter(|character| !character.is_control()).collect();
    (bad_csm_option, diagnostic)
}

pub(crate) fn write_abort(options: &mut OptionWriter<'_>, bad_csm_option: Option<u16>) {
    if let Some(number) = bad_csm_option {
        options.uint(BAD_CSM_OPTION, number.into());
    }
}
