//! An application on MSGin5G-5 whose every move the test makes.

use std::path::{Path, PathBuf};

use client::{ApplicationInterface, ApplicationsConfig, Client, ClientConfig, IncomingStream, SocketAccess};
use coap::{ExchangeId, Request, Response, StreamConfig, StreamConnection, StreamEvent};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::server::{Peer, Server, patiently};

/// A client that serves applications, and the server's end of its connection.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) peer: Peer,
    pub(crate) client: Client,
    pub(crate) socket: PathBuf,
    closing: CancellationToken,
    serving: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// Serves the applications of an applications file.
    pub(crate) async fn start(applications: &str) -> Self {
        Self::start_with(toml::from_str(applications).unwrap(), |_| {}).await
    }

    pub(crate) async fn start_with(applications: ApplicationsConfig, change: impl FnOnce(&mut ClientConfig)) -> Self {
        let server = Server::start().await;
        let mut config = server.config();
        change(&mut config);
        let (client, incoming, peer) = server.connected(config).await;
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("applications.sock");
        let closing = CancellationToken::new();
        let serving = serve(&client, incoming, &socket, applications, &closing);
        Self { server, peer, client, socket, closing, serving: Some(serving), _folder: folder }
    }

    pub(crate) async fn connect(&self) -> Application {
        Application::connect(&self.socket).await
    }

    /// A registered application.
    pub(crate) async fn application(&self, id: &str) -> Application {
        let mut application = self.connect().await;
        let (code, _) = application.register(id, None).await;
        assert_eq!(code, "2.01");
        application
    }

    /// Stops serving, and waits for the end.
    pub(crate) async fn close(&mut self) {
        self.closing.cancel();
        patiently(self.serving.take().unwrap()).await.unwrap();
    }

    /// Waits until the interface has ended by itself.
    pub(crate) async fn ended(&mut self) {
        patiently(self.serving.take().unwrap()).await.unwrap();
    }
}

fn serve(
    client: &Client,
    incoming: IncomingStream,
    socket: &Path,
    applications: ApplicationsConfig,
    closing: &CancellationToken,
) -> JoinHandle<()> {
    let interface = ApplicationInterface::bind(applications, socket, SocketAccess::Owner).unwrap();
    tokio::spawn(interface.serve(client.clone(), incoming, closing.clone()))
}

/// The user that the tests run as, and so the applications.
pub(crate) fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// One application.
pub(crate) struct Application {
    pub(crate) coap: StreamConnection,
    stream: UnixStream,
    ended: bool,
}

impl Application {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = patiently(UnixStream::connect(socket)).await.unwrap();
        Self { coap: StreamConnection::new(StreamConfig::default()), stream, ended: false }
    }

    /// The next event; none once the client has closed.
    pub(crate) async fn event(&mut self) -> Option<StreamEvent> {
        patiently(async {
            loop {
                self.flush().await;
                match self.coap.poll_event() {
                    Some(StreamEvent::PeerReady { .. }) => continue,
                    Some(event) => return Some(event),
                    None if self.ended => return None,
                    None => {}
                }
                let mut octets = [0; 4096];
                match self.stream.read(&mut octets).await {
                    Ok(0) | Err(_) => self.ended = true,
                    Ok(length) => self.coap.receive(&octets[..length]).unwrap(),
                }
            }
        })
        .await
    }

    pub(crate) async fn flush(&mut self) {
        while let Some(octets) = self.coap.poll_transmit() {
            if self.stream.write_all(&octets).await.is_err() {
                self.ended = true;
            }
        }
    }

    /// Octets as they are.
    pub(crate) async fn write(&mut self, octets: &[u8]) {
        self.flush().await;
        let _ = self.stream.write_all(octets).await;
    }

    pub(crate) async fn post(&mut self, body: &Value) -> ExchangeId {
        self.post_to("msgin5g", Some(50), body.to_string().into_bytes()).await
    }

    pub(crate) async fn post_to(&mut self, path: &str, format: Option<u16>, body: Vec<u8>) -> ExchangeId {
        let mut request = Request::post(path).payload(body);
        if let Some(format) = format {
            request = request.content_format(format);
        }
        let exchange = self.coap.request(request).unwrap();
        self.flush().await;
        exchange
    }

    /// The answer to a request: code and JSON.
    pub(crate) async fn answer(&mut self, exchange: ExchangeId) -> (String, Value) {
        match self.event().await {
            Some(StreamEvent::Response { exchange: answered, response }) if answered == exchange => {
                (response.code.to_string(), serde_json::from_slice(&response.payload).unwrap_or_default())
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ask(&mut self, body: &Value) -> (String, Value) {
        let exchange = self.post(body).await;
        self.answer(exchange).await
    }

    pub(crate) async fn register(&mut self, id: &str, credential: Option<&str>) -> (String, Value) {
        let mut body = json!({"msgType": "REG", "appId": id});
        if let Some(credential) = credential {
            body["credential"] = credential.into();
        }
        self.ask(&body).await
    }

    /// What the client delivers next.
    pub(crate) async fn delivered(&mut self) -> (ExchangeId, Value) {
        match self.event().await {
            Some(StreamEvent::Request { request }) => {
                assert_eq!((request.path, request.content_format), (vec!["msgin5g".to_owned()], Some(50)));
                (request.exchange, serde_json::from_slice(&request.payload).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn respond(&mut self, exchange: ExchangeId, code: coap::Code) {
        self.coap.respond(exchange, Response::new(code)).unwrap();
        self.flush().await;
    }

    /// Reads until the client ends the connection; yields its words.
    pub(crate) async fn last_words(&mut self) -> Option<String> {
        let mut words = None;
        while let Some(event) = self.event().await {
            match event {
                StreamEvent::Aborted { diagnostic, .. } => words = Some(diagnostic),
                StreamEvent::Released { .. } => words = Some("released".into()),
                _ => {}
            }
        }
        words
    }
}
