//! The peer's role: the UE of TS 33.501 6.1.3.1.
//!
//! For each EAP-Request/AKA'-Challenge, in the order of RFC 9048 3 and RFC 4187 9: key derivation function, network
//! name, AUTN, AT_MAC. The first that fails decides the answer.

use super::{
    Attribute, EAP_OCTETS_MAX, EapPacket, KDF_CK_PRIME, Keys, Message, Subtype, ck_prime_ik_prime, verify_mac,
};
use crate::{Error, KAusf, Msk, ServingNetworkName, Supi, Usim, UsimFailure};

/// AT_CLIENT_ERROR_CODE "unable to process packet", RFC 4187 10.20.
const UNABLE_TO_PROCESS: u16 = 0;

/// One EAP-AKA' authentication, peer side.
#[derive(Debug)]
pub struct Peer {
    supi: Supi,
    network_name: ServingNetworkName,
    /// The functions offered in a request that was answered by choosing another than the first.
    offered: Option<Vec<u16>>,
    /// The last request answered and its answer, for retransmissions (RFC 3748 4.1).
    last: Option<(Vec<u8>, Vec<u8>)>,
}

/// What the peer makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerOutcome {
    /// The network proved itself. The keys hold once EAP-Success arrives.
    Answered {
        /// To be sent.
        response: Vec<u8>,
        /// K_AUSF.
        k_ausf: KAusf,
        /// MSK.
        msk: Msk,
    },
    /// The network did not prove itself, or cannot be served.
    Refused {
        /// To be sent.
        response: Vec<u8>,
        /// Why.
        cause: PeerRefusal,
    },
    /// The server is asked to use a key derivation function that is known here; another request will follow.
    KdfChosen {
        /// To be sent.
        response: Vec<u8>,
    },
    /// The request came again; so does the answer.
    Repeated {
        /// To be sent.
        response: Vec<u8>,
    },
}

/// Why the peer refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerRefusal {
    /// AUTN is not of this home network.
    Autn,
    /// The vector was not made for 5G.
    SeparationBit,
    /// The sequence number is not fresh; the response carries an AUTS.
    Synchronisation,
    /// The network name is missing, or not the network the UE is at.
    NetworkName,
    /// No key derivation function that is known here, or the list was altered.
    Kdf,
    /// AT_MAC is missing or wrong.
    Mac,
    /// The request is malformed, or of a kind not used in 5G.
    NotProcessed,
}

impl Peer {
    /// A peer with this SUPI, at this serving network.
    pub fn new(supi: Supi, network_name: ServingNetworkName) -> Self {
        Self { supi, network_name, offered: None, last: None }
    }

    /// Answers a request. An answer to a challenge uses up the USIM's sequence number.
    ///
    /// # Errors
    /// [`Error::InvalidEap`] or [`Error::UnexpectedEap`] for what is not a request, and so has no answer.
    pub fn answer(&mut self, usim: &mut Usim, request: &[u8]) -> Result<PeerOutcome, Error> {
        // What is too long is not worth keeping for comparison, nor an answer.
        if request.len() > EAP_OCTETS_MAX {
            return Err(Error::InvalidEap("it is longer than 2048 octets"));
        }
        if let Some((last, response)) = &self.last
            && last == request
        {
            return Ok(PeerOutcome::Repeated { response: response.clone() });
        }
        let outcome = match EapPacket::decode(request) {
            Ok(EapPacket::Request { identifier, message }) if message.subtype == Subtype::Challenge => {
                self.challenge(usim, identifier, &message, request)?
            }
            Ok(EapPacket::Request { identifier, .. }) => client_error(identifier, PeerRefusal::NotProcessed)?,
            Ok(_) => return Err(Error::UnexpectedEap("it is not a request")),
            // Code 1 is a request; a request that cannot be read is answered as such (RFC 4187 6.3.1).
            Err(error) => match request {
                [1, identifier, ..] => client_error(*identifier, PeerRefusal::NotProcessed)?,
                _ => return Err(error),
            },
        };
        let (PeerOutcome::Answered { response, .. }
        | PeerOutcome::Refused { response, .. }
        | PeerOutcome::KdfChosen { response }
        | PeerOutcome::Repeated { response }) = &outcome;
        self.last = Some((request.to_vec(), response.clone()));
        Ok(outcome)
    }

    fn challenge(
        &mut self,
        usim: &mut Usim,
        identifier: u8,
        message: &Message,
        request: &[u8],
    ) -> Result<PeerOutcome, Error> {
        let (Some(rand), Some(autn)) = (message.rand(), message.autn()) else {
            return client_error(identifier, PeerRefusal::NotProcessed);
        };
        match self.negotiate(message.kdfs()) {
            Negotiation::Agreed => {}
            Negotiation::Choose => {
                let attributes = vec![Attribute::Kdf(KDF_CK_PRIME)];
                let message = Message { subtype: Subtype::Challenge, attributes };
                return Ok(PeerOutcome::KdfChosen { response: EapPacket::Response { identifier, message }.encode()? });
            }
            Negotiation::Failed => return authentication_reject(identifier, PeerRefusal::Kdf),
        }
        if message.network_name() != Some(self.network_name.as_str()) {
            return authentication_reject(identifier, PeerRefusal::NetworkName);
        }
        let answer = match usim.authenticate(rand, autn) {
            Ok(answer) => answer,
            Err(UsimFailure::Synchronisation { auts }) => {
                // RFC 9048 3.2 has the AT_KDF of the request repeated.
                let kdfs = message.kdfs().into_iter().map(Attribute::Kdf);
                let attributes = std::iter::once(Attribute::Auts(auts)).chain(kdfs).collect();
                let subtype = Subtype::SynchronizationFailure;
                return refuse(identifier, subtype, attributes, PeerRefusal::Synchronisation);
            }
            Err(UsimFailure::Mac) => return authentication_reject(identifier, PeerRefusal::Autn),
            Err(UsimFailure::SeparationBit) => return authentication_reject(identifier, PeerRefusal::SeparationBit),
        };
        let (ck_prime, ik_prime) =
            ck_prime_ik_prime(&answer.ck, &answer.ik, self.network_name.as_str(), &answer.sqn_xor_ak())?;
        let keys = Keys::for_supi(&ck_prime, &ik_prime, &self.supi);
        if verify_mac(request, &keys.k_aut).is_err() {
            return client_error(identifier, PeerRefusal::Mac);
        }
        let attributes = vec![Attribute::Res(answer.res), Attribute::Mac];
        let message = Message { subtype: Subtype::Challenge, attributes };
        let response = EapPacket::Response { identifier, message }.encode_authenticated(&keys.k_aut)?;
        Ok(PeerOutcome::Answered { response, k_ausf: keys.k_ausf(), msk: keys.msk })
    }

    /// RFC 9048 3.2. After a choice the server must put it before the list it offered, unchanged; at any other time no
    /// function may occur twice.
    fn negotiate(&mut self, kdfs: Vec<u16>) -> Negotiation {
        if let Some(offered) = self.offered.take() {
            let expected = std::iter::once(&KDF_CK_PRIME).chain(&offered);
            return if kdfs.iter().eq(expected) { Negotiation::Agreed } else { Negotiation::Failed };
        }
        let duplicate =
            kdfs.iter().enumerate().any(|(index, kdf)| kdfs.iter().skip(index + 1).any(|other| other == kdf));
        if duplicate || !kdfs.contains(&KDF_CK_PRIME) {
            return Negotiation::Failed;
        }
        if kdfs.first() == Some(&KDF_CK_PRIME) {
            return Negotiation::Agreed;
        }
        self.offered = Some(kdfs);
        Negotiation::Choose
    }
}

enum Negotiation {
    Agreed,
    Choose,
    Failed,
}

fn authentication_reject(identifier: u8, cause: PeerRefusal) -> Result<PeerOutcome, Error> {
    refuse(identifier, Subtype::AuthenticationReject, Vec::new(), cause)
}

fn client_error(identifier: u8, cause: PeerRefusal) -> Result<PeerOutcome, Error> {
    refuse(identifier, Subtype::ClientError, vec![Attribute::ClientErrorCode(UNABLE_TO_PROCESS)], cause)
}

fn refuse(
    identifier: u8,
    subtype: Subtype,
    attributes: Vec<Attribute>,
    cause: PeerRefusal,
) -> Result<PeerOutcome, Error> {
    let message = Message { subtype, attributes };
    Ok(PeerOutcome::Refused { response: EapPacket::Response { identifier, message }.encode()?, cause })
}
