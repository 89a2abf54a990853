//! A device that has only an HTTP stack: the same service over HTTPS, proven by HTTP Digest with K_AF.

use client::{ClientConfig, ClientError};

use super::cast::{Broken, Device, fqdn, text, within};
use super::inbox::Inbox;
use super::narrator::Narrator;
use super::{Registered, ue_to_ue};
use crate::lab::RunningLab;

/// Number of a subscriber in `lab.json`.
const LAMP: usize = 3;

/// It registers, sends and receives; and one that has the name without the key does not.
pub(super) async fn device_with_an_http_stack(
    lab: &RunningLab,
    narrator: &mut Narrator,
    meter: &mut Registered,
) -> Result<(), Broken> {
    narrator.scene("A device that has only an HTTP stack: HTTPS, and HTTP Digest with K_AF");
    let device = Device::new(lab, LAMP)?;
    let keys = device.authenticate().await?;
    let outcome = device.connect_with(&keys, config(lab, &device)?).await?;
    let (client, incoming) = outcome.map_err(|error| format!("{} is not registered: {error}", device.name))?;
    let server = fqdn(lab)?;
    narrator.proved(
        "MSGin5G Server",
        &device.name,
        &format!("its certificate, which carries {server}, and the same name as realm"),
    );
    narrator.proved(
        &device.name,
        "MSGin5G Server",
        "HTTP Digest of each request, body included, with K_AF as password",
    );
    let mut lamp = Registered { device, keys, client, inbox: Inbox::new(incoming) };
    ue_to_ue(narrator, &mut lamp, meter, "lamp on").await?;
    ue_to_ue(narrator, meter, &mut lamp, "lamp off").await?;

    let mut wrong = lamp.keys.clone();
    wrong.k_akma = meter.keys.k_akma.clone();
    match lamp.device.connect_with(&wrong, config(lab, &lamp.device)?).await? {
        // The device has no newer keys to try than those that were refused.
        Err(ClientError::KeysRefused(_) | ClientError::Keys(_)) => {}
        Err(error) => return Err(format!("expected refused keys, got: {error}")),
        Ok(_) => return Err("somebody with another key was let in".to_owned()),
    }
    let attempt = format!("shows the A-KID of {} over HTTPS, with another device's key", lamp.device.name);
    narrator.refused(
        "somebody",
        &attempt,
        "401 NOT_AUTHENTICATED",
        "the digest takes the K_AF that AAnF gave the server",
    );
    within("deregistration", lamp.client.deregister()).await?.map_err(text)?;
    narrator.held("each message once, each sender its report, no pre-shared key in the TLS handshake");
    Ok(())
}

fn config(lab: &RunningLab, device: &Device) -> Result<ClientConfig, Broken> {
    let description = lab.description();
    let root = description.server.https.as_deref().ok_or("lab.json has no server.https")?;
    let address = root.trim_start_matches("https://");
    let mut config = ClientConfig::new(address, fqdn(lab)?, device.ue_service_id.clone());
    config.path.clone_from(&description.server.path);
    config.https_ca = Some(lab.directory().certificate("server").ca);
    Ok(config)
}
