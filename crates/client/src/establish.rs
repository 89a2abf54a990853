//! One attempt at a connection: keys, TCP and TLS, or UDP and DTLS.

use std::{io, sync::Arc, time::Duration};

use akma::{AKid, AfId, Fqdn, KAf, UaProtocolId, k_af};
use coap::oscore::UA_PROTOCOL_OSCORE;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use transport::oscore::{OSCORE_ALGORITHMS, OscoreConnector};
use transport::{
    Carrier, ClientHandshakeError, DatagramCarrier, DtlsClientConfig, DtlsConnector, PskClientConfig, PskConnector,
    StreamCarrier, TlsVersion, WebSocketCarrier,
};

use crate::{
    config::{ClientConfig, Transport},
    error::ClientError,
    https::Https,
    key_source::{AkmaMaterial, KeySource},
    limits::ClientLimits,
    session::{datagram_config, stream_config},
};

/// Whom to connect to, and within which times.
pub(crate) struct Reach {
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) transport: Transport,
    /// Versions, suites and time-out.
    pub(crate) tls: PskClientConfig,
    /// The peer's name, for SNI and AF_ID.
    pub(crate) fqdn: Fqdn,
    /// Keys of this age are replaced.
    pub(crate) authenticate_after: Option<Duration>,
    pub(crate) limits: ClientLimits,
}

impl Reach {
    /// The server of a client.
    pub(crate) fn server(config: &ClientConfig) -> Self {
        Self {
            address: config.server.clone(),
            transport: config.transport,
            tls: config.tls.clone(),
            fqdn: config.server_fqdn.clone(),
            authenticate_after: config.authenticate_after,
            limits: config.limits.clone(),
        }
    }
}

impl Reach {
    /// The server's name as an URI of `coaps+ws` has it, with the port unless it is the scheme's own (RFC 8323 clause 8.4).
    fn authority(&self) -> String {
        match self.address.rsplit_once(':') {
            Some((_, port)) if port != "443" => format!("{}:{port}", self.fqdn),
            _ => self.fqdn.to_string(),
        }
    }
}

/// What does not change from one attempt to the next.
#[derive(Clone)]
pub(crate) struct Establisher {
    pub(crate) reach: Arc<Reach>,
    pub(crate) source: Arc<dyn KeySource>,
    pub(crate) connector: PskConnector,
    /// Used in the place of `connector`, if it is there.
    pub(crate) https: Option<Https>,
}

/// The keys at hand.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    pub(crate) material: Option<AkmaMaterial>,
    /// When they are to be replaced.
    pub(crate) renew_at: Option<Instant>,
    /// They are too old, or the server said so: others are needed.
    pub(crate) must_renew: bool,
    /// When the source was last asked for others than those at hand.
    renewed: Option<Instant>,
    /// No connection has been made with those at hand.
    unused: bool,
}

/// When keys are replaced: after so much of the time that the server gives them, drawn anew each time, so that a million
/// clients that registered together do not authenticate together.
const RENEW_FROM: f64 = 0.7;
/// The latest, likewise.
const RENEW_TO: f64 = 0.9;

impl Keys {
    /// The A-KID at hand.
    pub(crate) fn a_kid(&self) -> Option<&AKid> {
        self.material.as_ref().map(|material| &material.a_kid)
    }

    /// The server takes those at hand no more, unless what it said is about earlier ones.
    pub(crate) fn expired(&mut self) {
        self.must_renew |= !self.unused;
    }

    /// The same after a connection that was made with them came to no registration: they are used for another one at
    /// `again_at`, or are not, if they are what the server minds.
    pub(crate) fn not_registered(self, again_at: Instant, usable: bool) -> Self {
        Self { renew_at: Some(again_at), unused: usable, ..self }
    }

    /// The server takes those at hand for so long from `now` on. `draw` is evenly distributed over 0..1.
    pub(crate) fn live_for(&mut self, lifetime: Duration, now: Instant, draw: f64) {
        let renew_at = now + lifetime.mul_f64(RENEW_FROM + (RENEW_TO - RENEW_FROM) * draw.clamp(0.0, 1.0));
        self.renew_at = Some(self.renew_at.map_or(renew_at, |at| at.min(renew_at)));
    }
}

/// How an attempt ended. The keys may have changed either way.
pub(crate) struct Attempt {
    pub(crate) keys: Keys,
    pub(crate) result: Result<Secured, ClientError>,
}

/// A connection whose peer is proven.
pub(crate) struct Secured {
    pub(crate) carrier: Box<dyn Carrier>,
    pub(crate) version: TlsVersion,
    /// The cipher suite's IANA name.
    pub(crate) cipher: &'static str,
}

impl Establisher {
    /// Obtains keys if need be, connects, and runs the handshake; with new keys once more if the server does not take
    /// those at hand.
    pub(crate) async fn attempt(self, mut keys: Keys) -> Attempt {
        let result = self.establish(&mut keys).await;
        Attempt { keys, result }
    }

    /// The same with others than the keys at hand, for a client that is connected with those: where there are none, or the
    /// server does not take them, it stays so, and this is due again later.
    pub(crate) async fn renewal(self, mut keys: Keys) -> Attempt {
        let result = self.replace(&mut keys).await;
        if result.is_err() {
            keys.renew_at = Some(Instant::now() + self.reach.limits.backoff_max());
        }
        Attempt { keys, result }
    }

    async fn replace(&self, keys: &mut Keys) -> Result<Secured, ClientError> {
        let material = match &keys.material {
            Some(material) if keys.unused => {
                let material = material.clone();
                // That they are tried once more is not due again.
                keys.renew_at = self.reach.authenticate_after.map(|age| Instant::now() + age);
                material
            }
            _ => self.renew(keys).await?,
        };
        self.connect(keys, &material).await
    }

    /// When the keys may be replaced, if not yet: so soon after the last time.
    pub(crate) fn may_renew_at(&self, keys: &Keys) -> Option<Instant> {
        let earliest = keys.renewed? + self.reach.limits.authentication_interval();
        (earliest > Instant::now()).then_some(earliest)
    }

    async fn establish(&self, keys: &mut Keys) -> Result<Secured, ClientError> {
        if keys.must_renew && self.may_renew(keys) {
            self.renew_ahead(keys).await;
        } else if keys.must_renew {
            // Not so soon after the last time; until then those at hand serve on.
            keys.renew_at = keys.renewed.map(|when| when + self.reach.limits.authentication_interval());
        }
        let material = match &keys.material {
            Some(material) => material.clone(),
            None => self.obtain(keys, None).await?,
        };
        match self.connect(keys, &material).await {
            Err(refusal) if refuses_keys(&refusal) && self.may_renew(keys) => {
                tracing::info!(target: "security", a_kid = %material.a_kid, "the server does not take the keys; authenticating anew");
                let material = self.renew(keys).await?;
                self.connect(keys, &material).await
            }
            other => other,
        }
    }

    /// Replaces keys that may still be good: what is at hand serves on if there are no others.
    async fn renew_ahead(&self, keys: &mut Keys) {
        if let Err(error) = self.renew(keys).await {
            tracing::warn!(%error, "cannot replace the keys ahead of time");
            keys.must_renew = false;
            keys.renew_at = Some(Instant::now() + self.reach.limits.backoff_max());
        }
    }

    fn may_renew(&self, keys: &Keys) -> bool {
        keys.renewed.is_none_or(|when| when.elapsed() >= self.reach.limits.authentication_interval())
    }

    async fn renew(&self, keys: &mut Keys) -> Result<AkmaMaterial, ClientError> {
        let refused = keys.a_kid().cloned();
        keys.renewed = Some(Instant::now());
        self.obtain(keys, refused.as_ref()).await
    }

    async fn obtain(&self, keys: &mut Keys, refused: Option<&AKid>) -> Result<AkmaMaterial, ClientError> {
        let limit = self.reach.limits.authentication_timeout();
        let material = timeout(limit, self.source.obtain(refused)).await.map_err(|_| ClientError::KeysTimedOut)??;
        tracing::info!(target: "security", a_kid = %material.a_kid, "keys obtained");
        keys.material = Some(material.clone());
        keys.renew_at = self.reach.authenticate_after.map(|age| Instant::now() + age);
        keys.must_renew = false;
        keys.unused = true;
        Ok(material)
    }

    /// Those who were refused are as used up as those that were taken.
    async fn connect(&self, keys: &mut Keys, material: &AkmaMaterial) -> Result<Secured, ClientError> {
        let result = self.connect_with(material).await;
        keys.unused &= !matches!(&result, Ok(_) | Err(ClientError::KeysRefused(_)));
        result
    }

    async fn connect_with(&self, material: &AkmaMaterial) -> Result<Secured, ClientError> {
        if let Some(https) = &self.https {
            let server = &self.reach.address;
            let timed_out = || ClientError::Unreachable {
                server: server.clone(),
                source: Arc::new(std::io::ErrorKind::TimedOut.into()),
            };
            return timeout(self.reach.limits.connect_timeout(), Box::pin(https.connect(&self.reach, material)))
                .await
                .unwrap_or_else(|_| Err(timed_out()));
        }
        let connecting = async {
            match self.reach.transport {
                Transport::Tcp | Transport::WebSocket => self.over_tls(material).await,
                Transport::OscoreUdp => self.over_datagrams(material).await,
                Transport::OscoreTcp => self.over_stream(material).await,
                Transport::Udp => self.over_dtls(material).await,
            }
        };
        timeout(self.reach.limits.connect_timeout(), connecting)
            .await
            .unwrap_or_else(|_| Err(self.unreachable(io::ErrorKind::TimedOut.into())))
    }

    async fn over_tls(&self, material: &AkmaMaterial) -> Result<Secured, ClientError> {
        let stream = self.socket().await?;
        let key = |protocol| self.key(material, protocol);
        let secured = self.connector.connect(stream, &self.reach.fqdn, &material.a_kid, key).await;
        let stream = secured.map_err(|error| handshake_failed(error, material))?;
        let (version, cipher) = (stream.tls_version(), stream.cipher());
        let config = stream_config(&self.reach.limits);
        let carrier: Box<dyn Carrier> = if self.reach.transport == Transport::WebSocket {
            let opened = WebSocketCarrier::connect(stream, &self.reach.authority(), config).await;
            Box::new(opened.map_err(|error| ClientError::WebSocket(Arc::new(error)))?)
        } else {
            Box::new(StreamCarrier::new(stream, config))
        };
        Ok(Secured { carrier, version, cipher })
    }

    /// OSCORE over UDP (TS 33.535 Annex D). A name has the address that the system gives first.
    async fn over_datagrams(&self, material: &AkmaMaterial) -> Result<Secured, ClientError> {
        let mut addresses = lookup_host(&self.reach.address).await.map_err(|error| self.unreachable(error))?;
        let server = addresses.next().ok_or_else(|| self.unreachable(io::ErrorKind::NotFound.into()))?;
        let key = self.key(material, UaProtocolId::from_bytes(UA_PROTOCOL_OSCORE));
        let agreed = self.oscore().connect_udp(server, &material.a_kid, &key).await;
        let carrier = agreed.map_err(|error| handshake_failed(error, material))?;
        Ok(Secured { carrier: Box::new(carrier), version: TlsVersion::Oscore, cipher: OSCORE_ALGORITHMS })
    }

    /// The same over TCP.
    async fn over_stream(&self, material: &AkmaMaterial) -> Result<Secured, ClientError> {
        let stream = self.socket().await?;
        let key = self.key(material, UaProtocolId::from_bytes(UA_PROTOCOL_OSCORE));
        let agreed = self.oscore().connect_tcp(stream, &material.a_kid, &key).await;
        let carrier = agreed.map_err(|error| handshake_failed(error, material))?;
        Ok(Secured { carrier: Box::new(carrier), version: TlsVersion::Oscore, cipher: OSCORE_ALGORITHMS })
    }

    /// A name has the address that the system gives first.
    async fn over_dtls(&self, material: &AkmaMaterial) -> Result<Secured, ClientError> {
        let mut addresses = lookup_host(&self.reach.address).await.map_err(|error| self.unreachable(error))?;
        let server = addresses.next().ok_or_else(|| self.unreachable(io::ErrorKind::NotFound.into()))?;
        let connector = DtlsConnector::new(DtlsClientConfig {
            allow_plain_psk: self.reach.tls.allow_plain_psk_tls12,
            separator: self.reach.tls.separator,
            handshake_timeout: self.reach.tls.handshake_timeout,
            versions: self.reach.tls.versions,
            ..DtlsClientConfig::default()
        });
        let key = |protocol| self.key(material, protocol);
        let secured = connector.connect(server, &self.reach.fqdn, &material.a_kid, key).await;
        let session = secured.map_err(|error| handshake_failed(error, material))?;
        let (version, cipher) = (session.version(), session.cipher());
        let config = Arc::new(datagram_config(&self.reach.limits));
        // A server that moves is not followed, so there is nothing to prove.
        let carrier = DatagramCarrier::new(session, config, false).map_err(|error| self.unreachable(error))?;
        Ok(Secured { carrier: Box::new(carrier), version, cipher })
    }

    async fn socket(&self) -> Result<TcpStream, ClientError> {
        let stream = TcpStream::connect(&self.reach.address).await.map_err(|error| self.unreachable(error))?;
        // Messages are small and each waits for its answer.
        stream.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        Ok(stream)
    }

    fn oscore(&self) -> OscoreConnector {
        let limits = &self.reach.limits;
        OscoreConnector::new(Arc::new(datagram_config(limits)), stream_config(limits))
    }

    fn key(&self, material: &AkmaMaterial, protocol: UaProtocolId) -> KAf {
        k_af(&material.k_akma, &AfId::new(self.reach.fqdn.clone(), protocol))
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { server: self.reach.address.clone(), source: Arc::new(source) }
    }
}

fn handshake_failed(error: ClientHandshakeError, material: &AkmaMaterial) -> ClientError {
    match error {
        ClientHandshakeError::UnknownIdentity | ClientHandshakeError::WrongKey => {
            ClientError::KeysRefused(material.a_kid.clone())
        }
        other => ClientError::Handshake(Arc::new(other)),
    }
}

fn refuses_keys(error: &ClientError) -> bool {
    matches!(error, ClientError::KeysRefused(_))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::key_source::KeySourceError;
    use akma::KAkma;
    use futures_util::{FutureExt, future::BoxFuture};

    struct NeverAsked;

    impl KeySource for NeverAsked {
        fn obtain<'a>(&'a self, _: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
            async { panic!("asked again too soon") }.boxed()
        }
    }

    #[tokio::test]
    async fn keys_that_may_not_be_renewed_yet_serve_on_and_are_due_again_when_they_may() {
        // Nobody listens there any more.
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut config = ClientConfig::new(server, "server.example".parse().unwrap(), "ue@example".parse().unwrap());
        config.authenticate_after = Some(Duration::from_secs(1));
        let interval = config.limits.authentication_interval();
        let connector = PskConnector::new(PskClientConfig::default()).unwrap();
        let reach = Arc::new(Reach::server(&config));
        let establisher = Establisher { reach, source: Arc::new(NeverAsked), connector, https: None };
        let a_kid = "0.ab@realm.example".parse().unwrap();
        let renewed = Instant::now();
        let keys = Keys {
            material: Some(AkmaMaterial { a_kid, k_akma: KAkma::from_bytes([7; 32]), ue_id: None }),
            renew_at: Some(renewed),
            must_renew: true,
            renewed: Some(renewed),
            unused: false,
        };
        let attempt = establisher.attempt(keys).await;
        assert!(attempt.result.is_err());
        assert_eq!(attempt.keys.renew_at, Some(renewed + interval));
    }

    #[test]
    fn keys_are_replaced_within_their_lifetime_and_not_later_than_they_were_to_be() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        for (draw, seconds) in [(0.0, 70), (0.5, 80), (1.0, 90)] {
            let mut keys = Keys::default();
            keys.live_for(100 * second, now, draw);
            let left = keys.renew_at.unwrap() - now;
            assert!(left.abs_diff(seconds * second) < second, "{left:?}");
            // What was due before stays so.
            keys.live_for(1000 * second, now, draw);
            assert!((keys.renew_at.unwrap() - now).abs_diff(seconds * second) < second);
        }
    }
}
