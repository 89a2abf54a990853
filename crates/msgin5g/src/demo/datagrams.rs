//! A device that has UDP only.

use client::Transport;

use super::cast::{self, Broken, Device, text, within};
use super::inbox::Inbox;
use super::{EAP_VALVE, Narrator, Registered, ue_to_ue};
use crate::lab::RunningLab;

/// CoAP over UDP and DTLS to a device on TCP and TLS, and back.
pub(super) async fn over_dtls(lab: &RunningLab, narrator: &mut Narrator, meter: &mut Registered) -> Result<(), Broken> {
    narrator.scene("A device that has UDP only: CoAP over DTLS with a Connection ID (TS 33.535 Annex C, RFC 9146)");
    let device = Device::new(lab, EAP_VALVE)?;
    let keys = device.authenticate().await?;
    let (client, incoming) = device.register_over(lab, &keys, Transport::Udp).await?;
    let status = client.status();
    let (version, cipher) = (status.tls_version.unwrap_or_default(), status.cipher.unwrap_or_default());
    if !version.starts_with("DTLS") {
        return Err(format!("{} came over {version}", device.name));
    }
    let server = cast::fqdn(lab)?;
    narrator.proved(&device.name, "MSGin5G Server", &format!("K_AF as the key of {version}, {cipher}"));
    narrator.proved("MSGin5G Server", &device.name, &format!("the same K_AF, which only {server} gets from AAnF"));
    let mut valve = Registered { device, keys, client, inbox: Inbox::new(incoming) };
    ue_to_ue(narrator, meter, &mut valve, "open 40 %").await?;
    ue_to_ue(narrator, &mut valve, meter, "40 % it is").await?;
    within("deregistration", valve.client.deregister()).await?.map_err(text)?;
    narrator.held("each message went once, from TLS over TCP to DTLS over UDP and back, with its report");
    Ok(())
}
