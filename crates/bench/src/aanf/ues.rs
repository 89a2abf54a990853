//! UEs as an AUSF and an AF tell of them: made from their number, so that a million take no memory here.

use akma::{AKid, AfId, HomeNetwork, KAusf, RoutingIndicator, Supi, UaProtocolId, UeId, a_tid, k_akma};
use sbi::naanf::{AkmaAfKeyRequest, AkmaKeyInfo};

use super::domain::failed;
use crate::BenchError;

/// The UEs of one home network.
pub(crate) struct Ues {
    home_network: HomeNetwork,
    af_id: AfId,
}

impl Ues {
    pub(crate) fn new() -> Result<Self, BenchError> {
        let home_network = HomeNetwork::new("001", "01").map_err(failed)?;
        Ok(Self { home_network, af_id: AfId::new(AF_FQDN.parse().map_err(failed)?, UaProtocolId::TLS_1_3) })
    }

    /// What AUSF registers of the UE with this number.
    pub(crate) fn key_info(&self, number: u64) -> Result<AkmaKeyInfo, BenchError> {
        let (supi, k_ausf) = (supi(number)?, k_ausf(number));
        let k_akma = k_akma(&k_ausf, &supi);
        Ok(AkmaKeyInfo { supp_feat: None, a_kid: self.a_kid(&k_ausf, &supi), ue_id: UeId::Supi(supi), k_akma })
    }

    /// How an AF asks for the K_AF of the UE with this number.
    pub(crate) fn key_request(&self, number: u64) -> Result<AkmaAfKeyRequest, BenchError> {
        Ok(AkmaAfKeyRequest::new(self.af_id.clone(), self.a_kid(&k_ausf(number), &supi(number)?)))
    }

    fn a_kid(&self, k_ausf: &KAusf, supi: &Supi) -> AKid {
        AKid::format(&RoutingIndicator::default(), &a_tid(k_ausf, supi), &self.home_network)
    }
}

fn supi(number: u64) -> Result<Supi, BenchError> {
    format!("imsi-00101{number:010}").parse().map_err(failed)
}

/// Different for each; nothing hangs on its being hard to guess.
fn k_ausf(number: u64) -> KAusf {
    let mut octets = [0x5a; 32];
    if let Some(place) = octets.first_chunk_mut() {
        *place = number.to_be_bytes();
    }
    KAusf::from_bytes(octets)
}

/// The AF that asks for K_AF.
pub(super) const AF_FQDN: &str = "msgin5g.bench.example";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_registered_is_what_is_asked_for() {
        let ues = Ues::new().unwrap();
        let (one, other) = (ues.key_info(1).unwrap(), ues.key_info(2).unwrap());
        assert_eq!(ues.key_request(1).unwrap().a_kid, one.a_kid);
        assert!(one.a_kid != other.a_kid && one.ue_id != other.ue_id && one.k_akma != other.k_akma);
    }
}
