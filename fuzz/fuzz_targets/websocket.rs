//! A peer's octets, in whatever pieces, never break the WebSocket below CoAP on either side, and mean the same however they
//! are cut; a request, or an answer to one, never breaks the opening handshake.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transport::websocket::{ClientOpening, ServerOpening, WebSocket, WebSocketError};

const MESSAGE_OCTETS_MAX: usize = 2_048;
const REQUEST_OCTETS_MAX: usize = 512;

fuzz_target!(|input: (bool, Vec<&[u8]>)| {
    let (client, pieces) = input;
    let _ = pieces.iter().try_for_each(|piece| {
        let mut opening = ServerOpening::new(REQUEST_OCTETS_MAX);
        opening.receive(piece).map(drop)
    });
    if let Ok((mut opening, _)) = ClientOpening::new("example.org") {
        let _ = pieces.iter().try_for_each(|piece| opening.receive(piece).map(drop));
    }

    let socket = || if client { WebSocket::client(MESSAGE_OCTETS_MAX) } else { WebSocket::server(MESSAGE_OCTETS_MAX) };
    let (mut cut, mut whole) = (socket(), socket());
    let (mut of_cut, mut of_whole) = (Vec::new(), Vec::new());
    let failed = pieces.iter().find_map(|piece| receive(&mut cut, piece, &mut of_cut).err());
    let failed_whole = receive(&mut whole, &pieces.concat(), &mut of_whole).err();
    assert_eq!((&of_cut, failed), (&of_whole, failed_whole));
    assert!(of_cut.iter().all(|message| message.len() <= MESSAGE_OCTETS_MAX));
    for socket in [&mut cut, &mut whole] {
        socket.close(1000);
        socket.send(vec![0; 1]);
        let _ = socket.poll_transmit();
        assert!(socket.poll_transmit().is_none());
    }
});

fn receive(socket: &mut WebSocket, mut octets: &[u8], messages: &mut Vec<Vec<u8>>) -> Result<(), WebSocketError> {
    while let Some(message) = socket.receive(&mut octets)? {
        messages.push(message.to_vec());
    }
    Ok(())
}
