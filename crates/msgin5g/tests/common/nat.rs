//! A network that gives a device other addresses.

use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio::sync::watch;

/// A NAT: forwards datagrams of one device, from another port each time it is told to.
pub struct Nat {
    /// Where the device sends to.
    pub address: SocketAddr,
    ports: watch::Sender<usize>,
}

impl Nat {
    pub async fn in_front_of(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let (ports, mut changes) = watch::channel(0_usize);
        tokio::spawn(async move {
            let mut back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut device = None;
            let (mut there, mut here) = ([0; 4_096], [0; 4_096]);
            loop {
                tokio::select! {
                    Ok((octets, source)) = front.recv_from(&mut there) => {
                        device = Some(source);
                        let _ = back.send_to(&there[..octets], server).await;
                    }
                    Ok(octets) = back.recv(&mut here) => {
                        if let Some(device) = device {
                            let _ = front.send_to(&here[..octets], device).await;
                        }
                    }
                    Ok(()) = changes.changed() => back = UdpSocket::bind("127.0.0.1:0").await.unwrap(),
                }
            }
        });
        Self { address, ports }
    }

    /// Another port from now on.
    pub fn rebind(&self) {
        self.ports.send_modify(|port| *port += 1);
    }
}
