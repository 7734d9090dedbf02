//! Stands between a service and a server and breaks what passes.

use std::{net::SocketAddr, sync::Arc, sync::Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Ends with the test.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    server: String,
    mode: watch::Sender<Mode>,
    /// Cuts the connections of earlier generations.
    generation: watch::Sender<u64>,
    /// What the answer that is to be lost contains.
    swallow: Mutex<Option<Vec<u8>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Hold,
    Refuse,
}

impl Proxy {
    /// In front of `server`, `HOST:PORT`.
    pub async fn before(server: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server: server.into(),
            mode: watch::Sender::new(Mode::Pass),
            generation: watch::Sender::new(0),
            swallow: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, accepting }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Lets everything pass, what was held as well.
    pub fn pass(&self) {
        self.state.mode.send_replace(Mode::Pass);
    }

    /// Keeps every byte in either direction; connections stay.
    pub fn hold(&self) {
        self.state.mode.send_replace(Mode::Hold);
    }

    /// Closes every connection, and each new one at once.
    pub fn refuse(&self) {
        self.state.mode.send_replace(Mode::Refuse);
        self.cut();
    }

    /// Closes every connection; new ones pass.
    pub fn cut(&self) {
        self.state.generation.send_modify(|generation| *generation += 1);
    }

    /// Closes the connection on which the server next sends `part`, instead of passing it on: the
    /// server has done what it was asked, and the client does not learn it.
    pub fn swallow_answer_with(&self, part: &str) {
        *self.state.swallow.lock().unwrap() = Some(part.into());
    }

    /// Whether the answer that was to be lost has been.
    #[must_use]
    pub fn has_swallowed(&self) -> bool {
        self.state.swallow.lock().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if *state.mode.borrow() == Mode::Refuse {
            continue;
        }
        tokio::spawn(connect(client, Arc::clone(&state)));
    }
}

async fn connect(client: TcpStream, state: Arc<State>) {
    let mut generation = state.generation.subscribe();
    let Ok(server) = TcpStream::connect(&state.server).await else { return };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Whichever ends first takes the connection down with it.
    tokio::select! {
        () = pump(from_client, to_server, &state, false) => {}
        () = pump(from_server, to_client, &state, true) => {}
        _ = generation.changed() => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, are_answers: bool) {
    let mut mode = state.mode.subscribe();
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if mode.wait_for(|mode| *mode != Mode::Hold).await.is_err() {
            return;
        }
        if are_answers && state.is_to_be_lost(&bytes[..read]) {
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

impl State {
    fn is_to_be_lost(&self, answer: &[u8]) -> bool {
        let mut swallow = self.swallow.lock().unwrap();
        let found = swallow.as_ref().is_some_and(|part| answer.windows(part.len()).any(|window| window == part));
        if found {
            *swallow = None;
        }
        found
    }
}
