//! Other ways to the server than TCP.

use client::{Outcome, OutgoingMessage, Transport};

use super::{
    Inbox, Registered,
    cast::{Broken, within},
    expect_outcome,
    narrator::Narrator,
    ue_to_ue,
};
use crate::lab::RunningLab;

/// The valve moves to a network that lets only port 443 through, and gets there what waited for it.
pub(crate) async fn websocket(
    lab: &RunningLab,
    narrator: &mut Narrator,
    meter: &mut Registered,
    valve: Registered,
) -> Result<Registered, Broken> {
    narrator.scene("The valve moves to a network that lets only port 443 through: CoAP over WebSocket (RFC 8323)");
    let Registered { device, keys, client, .. } = valve;
    within("closing a client", client.close()).await?;
    let message = OutgoingMessage::to_ue(&device.ue_service_id, "while you moved").store_and_forward(None);
    let id = message.id().clone();
    expect_outcome(within("an answer", meter.client.send(message)).await?, &Outcome::Stored)?;
    let (client, incoming) = device.register_over(lab, &keys, Transport::WebSocket).await?;
    let tls = client.status().tls_version.unwrap_or_default();
    narrator.proved(&device.name, "MSGin5G Server", &format!("the same K_AF, below a WebSocket now ({tls})"));
    let mut valve = Registered { device, keys, client, inbox: Inbox::new(incoming) };
    valve.inbox.message(&id).await?;
    ue_to_ue(narrator, meter, &mut valve, "over TCP to a WebSocket").await?;
    ue_to_ue(narrator, &mut valve, meter, "and back").await?;
    valve.inbox.expect_once(&id).map_err(|reason| format!("what was stored {reason}"))?;
    narrator.held("what was stored on the way came once, and messages flow between TCP and WebSocket");
    Ok(valve)
}
