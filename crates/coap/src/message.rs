//! Requests and responses: what an application says and hears.

use std::borrow::Cow;
use std::fmt;

use coap_lite::CoapOption;

use crate::code::Code;
use crate::error::ConnectionError;
use crate::frame::{Frame, OptionReader, OptionWriter, read_uint};

/// Names one request and its response on one connection, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub(crate) u64);

/// What a GET or FETCH wants besides its answer (RFC 7641 2): the Observe option of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observe {
    /// 0: further responses whenever the resource changes.
    Register,
    /// 1: no more of them.
    Deregister,
}

impl Observe {
    const fn number(self) -> u32 {
        match self {
            Self::Register => 0,
            Self::Deregister => 1,
        }
    }

    /// Any other value is passed over: the option is elective.
    const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Register),
            1 => Some(Self::Deregister),
            _ => None,
        }
    }
}

/// A request of the peer. [`Request::post`] and its like begin one of ours.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What to give to [`crate::StreamConnection::respond`].
    pub exchange: ExchangeId,
    /// [`Code::GET`] to [`Code::IPATCH`].
    pub method: Code,
    /// Uri-Path, one entry a segment.
    pub path: Vec<String>,
    /// Uri-Query, one entry an argument.
    pub query: Vec<String>,
    /// Content-Format of the payload (IANA's CoAP Content-Formats; 50 is JSON).
    pub content_format: Option<u16>,
    /// Content-Format wanted in the response.
    pub accept: Option<u16>,
    /// Whether further responses are wanted; with a GET or FETCH only. Whoever does not serve it answers as ever.
    pub observe: Option<Observe>,
    /// At most [`crate::StreamConfig::max_message_size_own`] octets.
    pub payload: Vec<u8>,
    /// The OSCORE option: the rest is what lies outside. Only after [`crate::StreamConnection::for_oscore`] or its namesake.
    pub(crate) oscore: Option<Box<[u8]>>,
}

impl Request {
    /// Begins a request with that method to a path such as `msgin5g` or `su-uc/v1/val-services`; a slash at the start
    /// does not count.
    #[must_use]
    pub fn with_method(method: Code, path: &str) -> RequestBuilder<'_> {
        RequestBuilder {
            method,
            path: path.strip_prefix('/').unwrap_or(path),
            query: &[],
            content_format: None,
            accept: None,
            observe: None,
            confirmable: true,
            payload: Cow::Borrowed(&[]),
            oscore: None,
        }
    }

    /// Begins a GET.
    #[must_use]
    pub fn get(path: &str) -> RequestBuilder<'_> {
        Self::with_method(Code::GET, path)
    }

    /// Begins a POST.
    #[must_use]
    pub fn post(path: &str) -> RequestBuilder<'_> {
        Self::with_method(Code::POST, path)
    }
}

impl fmt::Debug for Request {
    /// Prints the length of the payload, not its octets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("exchange", &self.exchange)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("content_format", &self.content_format)
            .field("accept", &self.accept)
            .field("observe", &self.observe)
            .field("payload_octets", &self.payload.len())
            .finish()
    }
}

/// A request to be sent with [`crate::StreamConnection::request`].
#[derive(Clone)]
pub struct RequestBuilder<'a> {
    method: Code,
    path: &'a str,
    query: &'a [&'a str],
    content_format: Option<u16>,
    accept: Option<u16>,
    observe: Option<Observe>,
    confirmable: bool,
    payload: Cow<'a, [u8]>,
    oscore: Option<&'a [u8]>,
}

impl<'a> RequestBuilder<'a> {
    /// Uri-Query, one entry an argument of at most 255 octets.
    #[must_use]
    pub fn query(mut self, query: &'a [&'a str]) -> Self {
        self.query = query;
        self
    }

    /// Content-Format of the payload.
    #[must_use]
    pub fn content_format(mut self, content_format: u16) -> Self {
        self.content_format = Some(content_format);
        self
    }

    /// Content-Format wanted in the response.
    #[must_use]
    pub fn accept(mut self, accept: u16) -> Self {
        self.accept = Some(accept);
        self
    }

    /// Asks for further responses whenever the resource changes, or for no more of them.
    #[must_use]
    pub fn observe(mut self, observe: Observe) -> Self {
        self.observe = Some(observe);
        self
    }

    /// Sends it once and does not ask for an acknowledgement (RFC 7252 4.3): over datagrams it may be lost, and is then
    /// not repeated. A stream loses nothing, and makes no difference.
    #[must_use]
    pub fn non_confirmable(mut self) -> Self {
        self.confirmable = false;
        self
    }

    /// The payload, borrowed or owned.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Cow<'a, [u8]>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Makes it the outside of a protected request.
    pub(crate) fn oscore(mut self, option: &'a [u8]) -> Self {
        self.oscore = Some(option);
        self
    }

    /// The same without Observe.
    pub(crate) fn unobserved(&self) -> Self {
        Self { observe: None, ..self.clone() }
    }

    pub(crate) fn asks_to_observe(&self) -> bool {
        self.observe == Some(Observe::Register)
    }

    pub(crate) fn is_confirmable(&self) -> bool {
        self.confirmable
    }

    pub(crate) fn method(&self) -> Code {
        self.method
    }

    pub(crate) fn payload_octets(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) fn check(&self) -> Result<(), ConnectionError> {
        if !matches!(self.method.octet(), 0x01..=0x07) {
            return Err(ConnectionError::InvalidCode(self.method));
        }
        // RFC 7252 5.10.1: segments and arguments of at most 255 octets, "." and ".." not among the segments.
        let segments_fit = self.segments().all(|segment| segment.len() <= 255 && !matches!(segment, "." | ".."));
        let arguments_fit = self.query.iter().all(|argument| argument.len() <= 255);
        if segments_fit && arguments_fit { Ok(()) } else { Err(ConnectionError::InvalidOption) }
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').take(if self.path.is_empty() { 0 } else { usize::MAX })
    }

    pub(crate) fn write_options(&self, options: &mut OptionWriter<'_>) {
        if let Some(observe) = self.observe {
            options.uint(CoapOption::Observe.into(), observe.number());
        }
        if let Some(option) = self.oscore {
            options.octets(CoapOption::Oscore.into(), option);
        }
        for segment in self.segments() {
            options.octets(CoapOption::UriPath.into(), segment.as_bytes());
        }
        if let Some(content_format) = self.content_format {
            options.uint(CoapOption::ContentFormat.into(), content_format.into());
        }
        for argument in self.query {
            options.octets(CoapOption::UriQuery.into(), argument.as_bytes());
        }
        if let Some(accept) = self.accept {
            options.uint(CoapOption::Accept.into(), accept.into());
        }
    }
}

impl fmt::Debug for RequestBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("payload_octets", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// A response, of the peer or of ours.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// Class 2, 4 or 5.
    pub code: Code,
    /// Content-Format of the payload (IANA's CoAP Content-Formats; 50 is JSON).
    pub content_format: Option<u16>,
    /// Max-Age, seconds: with 4.29 and 5.03, when to come back.
    pub max_age: Option<u32>,
    /// The Observe option: in a response of the peer, more will come to the same request; in one of ours, more will come
    /// if the peer asked for it. Without value over a stream (RFC 8323 7.1), with the
    /// number that keeps order over datagrams, which is not told.
    pub observe: bool,
    /// At most [`crate::StreamConfig::max_message_size_own`] octets.
    pub payload: Vec<u8>,
    /// As in a request.
    pub(crate) oscore: Option<Box<[u8]>>,
}

impl Response {
    /// A response of that code with nothing in it.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { code, content_format: None, max_age: None, observe: false, payload: Vec::new(), oscore: None }
    }

    /// Content-Format of the payload.
    #[must_use]
    pub fn with_content_format(mut self, content_format: u16) -> Self {
        self.content_format = Some(content_format);
        self
    }

    /// Max-Age, seconds.
    #[must_use]
    pub fn with_max_age(mut self, max_age: u32) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Says that more will come, if the peer asked to observe.
    #[must_use]
    pub fn with_observe(mut self) -> Self {
        self.observe = true;
        self
    }

    /// The payload.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// `observed` is whether the response is part of an observation, whatever it asks for.
    pub(crate) fn write_options(&self, options: &mut OptionWriter<'_>, observed: bool) {
        if observed {
            options.octets(CoapOption::Observe.into(), &[]);
        }
        if let Some(option) = &self.oscore {
            options.octets(CoapOption::Oscore.into(), option);
        }
        if let Some(content_format) = self.content_format {
            options.uint(CoapOption::ContentFormat.into(), content_format.into());
        }
        if let Some(max_age) = self.max_age {
            options.uint(CoapOption::MaxAge.into(), max_age);
        }
    }
}

impl fmt::Debug for Response {
    /// Prints the length of the payload, not its octets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("code", &self.code)
            .field("content_format", &self.content_format)
            .field("max_age", &self.max_age)
            .field("observe", &self.observe)
            .field("payload_octets", &self.payload.len())
            .finish()
    }
}

/// A message that is well formed and yet not served: answered, if it is a request, with this code and this text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) diagnostic: &'static str,
}

impl Refusal {
    const fn bad_option(diagnostic: &'static str) -> Self {
        Self { code: Code::BAD_OPTION, diagnostic }
    }
}

/// Options and payload of one message, with what is wrong with it if it cannot be served. A malformed message is an
/// error; that takes precedence, because after it the stream cannot be trusted.
fn read<'a>(
    frame: &Frame<'a>,
    options_max: usize,
    mut take: impl FnMut(CoapOption, u16, &'a [u8]) -> Result<(), Refusal>,
) -> Result<Result<&'a [u8], Refusal>, ConnectionError> {
    let mut options: OptionReader<'a> = frame.options();
    let mut refusal = None;
    let mut count = 0;
    while let Some((number, value)) = options.next()? {
        count += 1;
        if refusal.is_none() {
            refusal = if count > options_max {
                Some(Refusal { code: Code::BAD_REQUEST, diagnostic: "too many options" })
            } else {
                take(CoapOption::from(number), number, value).err()
            };
        }
    }
    let payload = options.payload()?;
    Ok(refusal.map_or(Ok(payload), Err))
}

/// RFC 7252 5.4.1: an option with an odd number must be understood.
fn is_critical(number: u16) -> bool {
    number & 1 == 1
}

/// Which critical options are understood by whoever asks for the message to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    /// Block1 and Block2.
    pub(crate) block_wise: bool,
    /// The OSCORE option.
    pub(crate) oscore: bool,
}

/// Reads a request. Uri-Host and Uri-Port are understood and not looked at: there is one virtual server, the one that
/// the connection was secured for.
pub(crate) fn read_request(
    frame: &Frame<'_>,
    exchange: ExchangeId,
    options_max: usize,
    served: Served,
) -> Result<Result<Request, Refusal>, ConnectionError> {
    let mut request = Request {
        exchange,
        method: frame.code,
        path: Vec::new(),
        query: Vec::new(),
        content_format: None,
        accept: None,
        observe: None,
        payload: Vec::new(),
        oscore: None,
    };
    let may_observe = matches!(frame.code, Code::GET | Code::FETCH);
    let (mut host, mut port) = (false, false);
    let read = read(frame, options_max, |option, number, value| {
        match option {
            CoapOption::UriPath => request.path.push(path_segment(value)?),
            CoapOption::UriQuery => request.query.push(text(value, "Uri-Query out of range")?),
            // Elective: a value or repetition that is out of order is passed over (RFC 7252 5.4.3, 5.4.5).
            CoapOption::ContentFormat if request.content_format.is_none() => {
                request.content_format = read_uint(value, 2).map(|number| number as u16);
            }
            CoapOption::Accept if request.accept.is_none() => {
                let number = read_uint(value, 2).ok_or(Refusal::bad_option("Accept out of range"))?;
                request.accept = Some(number as u16);
            }
            CoapOption::Observe if may_observe && request.observe.is_none() => {
                request.observe = read_uint(value, 3).and_then(Observe::from_number);
            }
            CoapOption::Oscore if served.oscore && request.oscore.is_none() => request.oscore = Some(value.into()),
            CoapOption::UriHost if !host && (1..=255).contains(&value.len()) => host = true,
            CoapOption::UriPort if !port && value.len() <= 2 => port = true,
            CoapOption::ProxyUri | CoapOption::ProxyScheme => {
                return Err(Refusal { code: Code::PROXYING_NOT_SUPPORTED, diagnostic: "not a proxy" });
            }
            CoapOption::Block1 | CoapOption::Block2 if served.block_wise => {}
            _ if is_critical(number) => return Err(Refusal::bad_option("critical option not supported")),
            _ => {}
        }
        Ok(())
    })?;
    if frame.code > Code::IPATCH {
        return Ok(Err(Refusal { code: Code::METHOD_NOT_ALLOWED, diagnostic: "unknown method" }));
    }
    Ok(read.map(|payload| {
        request.payload = payload.to_vec();
        request
    }))
}

/// Reads a response.
pub(crate) fn read_response(
    frame: &Frame<'_>,
    options_max: usize,
    served: Served,
) -> Result<Result<Response, Refusal>, ConnectionError> {
    let mut response = Response::new(frame.code);
    let read = read(frame, options_max, |option, number, value| {
        match option {
            CoapOption::ContentFormat if response.content_format.is_none() => {
                response.content_format = read_uint(value, 2).map(|number| number as u16);
            }
            CoapOption::MaxAge if response.max_age.is_none() => response.max_age = read_uint(value, 4),
            CoapOption::Observe => response.observe = true,
            CoapOption::Oscore if served.oscore && response.oscore.is_none() => response.oscore = Some(value.into()),
            CoapOption::Block1 | CoapOption::Block2 if served.block_wise => {}
            _ if is_critical(number) => return Err(Refusal::bad_option("critical option not supported")),
            _ => {}
        }
        Ok(())
    })?;
    Ok(read.map(|payload| {
        response.payload = payload.to_vec();
        response
    }))
}

const PATH_OUT_OF_RANGE: &str = "Uri-Path out of range";

fn path_segment(value: &[u8]) -> Result<String, Refusal> {
    let segment = text(value, PATH_OUT_OF_RANGE)?;
    // RFC 7252 5.10.1: what a path must not hold.
    if matches!(segment.as_str(), "." | "..") { Err(Refusal::bad_option(PATH_OUT_OF_RANGE)) } else { Ok(segment) }
}

fn text(value: &[u8], out_of_range: &'static str) -> Result<String, Refusal> {
    if value.len() > 255 {
        return Err(Refusal::bad_option(out_of_range));
    }
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| Refusal::bad_option(out_of_range))
}
