//! The server's role: the AUSF of TS 33.501 6.1.3.1.
//!
//! [`Server::start`] makes the challenge; [`Server::receive`] takes the answer, once. A synchronisation failure ends
//! the session: the AUSF fetches a new vector and starts another with the next identifier.

use super::{Attribute, EapPacket, KDF_CK_PRIME, Keys, Message, Subtype, ck_prime_ik_prime, verify_mac};
use crate::{AuthenticationVector, CkPrime, Error, IkPrime, KAusf, Msk, Res, ServingNetworkName, Supi};

/// What the home network gives the server for one challenge: the transformed vector of TS 33.501 6.1.3.1 step 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The challenge.
    pub rand: [u8; 16],
    /// The network's proof.
    pub autn: [u8; 16],
    /// The expected answer.
    pub xres: Res,
    /// CK'.
    pub ck_prime: CkPrime,
    /// IK'.
    pub ik_prime: IkPrime,
}

impl Challenge {
    /// Binds a vector to a serving network, as the UDM does.
    pub fn new(vector: &AuthenticationVector, serving_network_name: &ServingNetworkName) -> Self {
        let (ck_prime, ik_prime) =
            ck_prime_ik_prime(&vector.ck, &vector.ik, serving_network_name.as_str(), &vector.sqn_xor_ak())
                .expect("a serving network name is far shorter than 65535 octets");
        Self { rand: vector.rand, autn: vector.autn, xres: vector.xres.clone(), ck_prime, ik_prime }
    }
}

/// One EAP-AKA' authentication, server side.
#[derive(Debug)]
pub struct Server {
    identifier: u8,
    xres: Res,
    keys: Keys,
    finished: bool,
}

/// How a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerOutcome {
    /// The peer proved itself.
    Authenticated {
        /// EAP-Success, to be sent.
        success: Vec<u8>,
        /// K_AUSF.
        k_ausf: KAusf,
        /// MSK, for who needs it (TS 29.509 `msk`).
        msk: Msk,
    },
    /// The USIM wants a higher sequence number: ask the home network for a new vector with this AUTS.
    SynchronizationFailure {
        /// To be verified by the home network.
        auts: [u8; 14],
    },
    /// The peer did not prove itself, or would not go on.
    Rejected {
        /// EAP-Failure, to be sent.
        failure: Vec<u8>,
        /// Why.
        cause: RejectionCause,
    },
}

/// Why a session ended without authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionCause {
    /// RES is wrong or missing.
    Res,
    /// AT_MAC is wrong or missing.
    Mac,
    /// The peer did not accept AUTN, or the network name, or the key derivation function.
    AuthenticationReject,
    /// The peer could not process the challenge; its error code.
    ClientError(u16),
    /// The peer asked for another key derivation function, which is not offered.
    Kdf,
}

impl Server {
    /// Starts a session: the session, and the EAP-Request/AKA'-Challenge to be sent.
    ///
    /// Only the SUPI enters the keys, whatever identity the UE showed (TS 33.501 F.3).
    ///
    /// # Errors
    /// None in practice; [`Error::InvalidEap`] if the packet did not fit its limits.
    pub fn start(
        identifier: u8,
        challenge: &Challenge,
        supi: &Supi,
        serving_network_name: &ServingNetworkName,
    ) -> Result<(Self, Vec<u8>), Error> {
        let keys = Keys::for_supi(&challenge.ck_prime, &challenge.ik_prime, supi);
        let attributes = vec![
            Attribute::Rand(challenge.rand),
            Attribute::Autn(challenge.autn),
            Attribute::Kdf(KDF_CK_PRIME),
            Attribute::KdfInput(serving_network_name.as_str().to_owned()),
            Attribute::Mac,
        ];
        let message = Message { subtype: Subtype::Challenge, attributes };
        let request = EapPacket::Request { identifier, message }.encode_authenticated(&keys.k_aut)?;
        Ok((Self { identifier, xres: challenge.xres.clone(), keys, finished: false }, request))
    }

    /// Takes the peer's answer.
    ///
    /// # Errors
    /// [`Error::InvalidEap`] or [`Error::UnexpectedEap`] for a packet that is not the answer: it may be ignored, the
    /// session still waits. Every other packet, good or bad, ends the session, so that nobody tries twice.
    pub fn receive(&mut self, packet: &[u8]) -> Result<ServerOutcome, Error> {
        let EapPacket::Response { identifier, message } = EapPacket::decode(packet)? else {
            return Err(Error::UnexpectedEap("it is not a response"));
        };
        if identifier != self.identifier {
            return Err(Error::UnexpectedEap("its identifier is not that of the request"));
        }
        if self.finished {
            return Err(Error::UnexpectedEap("the session has ended"));
        }
        let outcome = match message.subtype {
            Subtype::Challenge => self.challenge_response(packet, &message)?,
            Subtype::SynchronizationFailure => match message.auts() {
                Some(auts) => ServerOutcome::SynchronizationFailure { auts: *auts },
                None => return Err(Error::InvalidEap("a synchronisation failure has no AT_AUTS")),
            },
            Subtype::AuthenticationReject => self.reject(RejectionCause::AuthenticationReject)?,
            Subtype::ClientError => {
                let code = message.client_error_code().ok_or(Error::InvalidEap("a client error has no code"))?;
                self.reject(RejectionCause::ClientError(code))?
            }
            _ => return Err(Error::UnexpectedEap("the subtype does not answer a challenge")),
        };
        self.finished = true;
        Ok(outcome)
    }

    fn challenge_response(&self, packet: &[u8], message: &Message) -> Result<ServerOutcome, Error> {
        let Some(res) = message.res() else {
            // RFC 9048 3.2: a response with nothing but AT_KDF asks for another function.
            let cause = if message.kdfs().is_empty() { RejectionCause::Res } else { RejectionCause::Kdf };
            return self.reject(cause);
        };
        if verify_mac(packet, &self.keys.k_aut).is_err() {
            return self.reject(RejectionCause::Mac);
        }
        if *res != self.xres {
            return self.reject(RejectionCause::Res);
        }
        Ok(ServerOutcome::Authenticated {
            success: EapPacket::Success { identifier: self.identifier }.encode()?,
            k_ausf: self.keys.k_ausf(),
            msk: self.keys.msk.clone(),
        })
    }

    fn reject(&self, cause: RejectionCause) -> Result<ServerOutcome, Error> {
        Ok(ServerOutcome::Rejected { failure: EapPacket::Failure { identifier: self.identifier }.encode()?, cause })
    }
}
