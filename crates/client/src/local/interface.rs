//! The socket that applications connect to, and what goes to whom.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UnixStream, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    connection::Connection,
    desk::{ConnectionId, Desk},
    policy::{ApplicationsConfig, Policy},
    socket::{Socket, SocketAccess},
};
use crate::{client::Client, error::ClientError, incoming::IncomingStream};

/// Pause after a connection could not be accepted, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// MSGin5G-5 (TS 23.554 clause 8.11, TS 24.538 clause 6.4.2): several applications of one machine share one MSGin5G
/// Client over a Unix domain socket, told apart by Application ID.
///
/// [`ApplicationInterface::bind`] opens the socket; [`ApplicationInterface::serve`] does the rest.
#[derive(Debug)]
pub struct ApplicationInterface {
    socket: Socket,
    policy: Policy,
}

impl ApplicationInterface {
    /// Opens the socket at `path`, with the permissions of `access` from its first moment. One left over from a crash is
    /// replaced. Must be called on a tokio runtime. Whoever connects waits until [`ApplicationInterface::serve`].
    ///
    /// # Errors
    /// [`ClientError::Configuration`] for entries that cannot work, [`ClientError::SocketInUse`] if somebody serves the
    /// socket, and [`ClientError::State`] if it cannot be made, or the path is something else.
    pub fn bind(config: ApplicationsConfig, path: impl AsRef<Path>, access: SocketAccess) -> Result<Self, ClientError> {
        let policy = Policy::new(config)?;
        let socket = Socket::bind(path.as_ref(), access)?;
        Ok(Self { socket, policy })
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.socket.path.clone()
    }

    /// Serves applications until `closing` is cancelled or the client is closed: their messages go to `client`, and what
    /// comes out of `incoming` goes to them. Ends connections in good order, within the limit for closing; what was not
    /// accepted goes back to the server. The socket's file is removed in the end. The client stays as it is.
    pub async fn serve(self, client: Client, mut incoming: IncomingStream, closing: CancellationToken) {
        let Self { socket, policy } = self;
        let limits = policy.limits.clone();
        let desk = Arc::new(Desk::new(policy, client.config().limits.come_back()));
        // Ends with this future, too: dropping it is a way to end it all at once.
        let closing = closing.child_token();
        let _end_with_me = closing.clone().drop_guard();
        let mut connections = JoinSet::new();
        let mut under_way = JoinSet::new();
        let mut next = 0;
        loop {
            tokio::select! {
                accepted = socket.listener.accept() => match accepted {
                    // Dropping it closes it; whoever it was may come back.
                    Ok(_) if connections.len() >= limits.connections_max => {
                        tracing::warn!(connections_max = limits.connections_max, "too many applications are connected");
                    }
                    Ok((stream, _)) => {
                        next += 1;
                        let connection = Connection::new(ConnectionId(next), Arc::clone(&desk), client.clone(), uid(&stream));
                        connections.spawn(connection.run(stream, closing.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection of an application is not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Ok(left) = ended
                        && !left.is_empty()
                    {
                        under_way.spawn(left.finish());
                    }
                }
                Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
                arrived = incoming.next() => match arrived {
                    Some(arrived) => desk.arrived(arrived),
                    None => break,
                },
                () = closing.cancelled() => break,
            }
        }
        closing.cancel();
        // Nobody is to find the socket who would not be served.
        drop(socket);
        let finish = async {
            while let Some(ended) = connections.join_next().await {
                if let Ok(left) = ended {
                    left.finish().await;
                }
            }
            while under_way.join_next().await.is_some() {}
        };
        // Connections keep to the limit by themselves; messages whose answer is still awaited do not. What is left is
        // dropped with the sets.
        let _ = tokio::time::timeout(limits.close_timeout() + ACCEPT_PAUSE, finish).await;
    }
}

/// The user that the peer runs as; none if the system does not say, and then who must be some user is nobody.
fn uid(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|credentials| credentials.uid())
}
