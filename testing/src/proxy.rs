//! Stands between a service and a server and breaks what passes.

mod exchange;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use exchange::Exchange;

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
    server: Mutex<String>,
    /// Whether requests and answers can be told apart, as Kafka's.
    kafka: bool,
    mode: watch::Sender<Mode>,
    /// Cuts the connections of earlier generations.
    generation: watch::Sender<u64>,
    swallow: Mutex<Option<Lost>>,
}

/// An answer that is to be lost.
#[derive(Debug)]
enum Lost {
    /// The next that contains this.
    With(Vec<u8>),
    /// The next to a Produce.
    ToProduce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Hold,
    Refuse,
    /// Of whatever comes in nothing goes on, and nobody is told.
    Lose,
}

impl Proxy {
    /// In front of `server`, `HOST:PORT`.
    pub async fn before(server: impl Into<String>) -> Self {
        Self::start(server.into(), false).await
    }

    /// In front of a broker, which tells its clients this proxy's port.
    pub(crate) async fn before_kafka(server: String) -> Self {
        Self::start(server, true).await
    }

    async fn start(server: String, kafka: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server: Mutex::new(server),
            kafka,
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

    /// Behaves as a host that has vanished: connections stay open towards the client, swallow every byte and never
    /// answer again, those made meanwhile too. The server has given its ends up. New ones pass after [`Proxy::pass`].
    pub fn lose(&self) {
        self.state.mode.send_replace(Mode::Lose);
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

    /// Closes every connection; new ones lead to another server.
    pub fn lead_to(&self, server: impl Into<String>) {
        *self.state.server.lock().unwrap() = server.into();
        self.cut();
    }

    /// Closes the connection on which the server next sends `part`, instead of passing it on: the
    /// server has done what it was asked, and the client does not learn it.
    pub fn swallow_answer_with(&self, part: impl AsRef<[u8]>) {
        *self.state.swallow.lock().unwrap() = Some(Lost::With(part.as_ref().to_vec()));
    }

    /// Closes the connection on which the broker next answers a Produce, instead of passing the
    /// answer on: the messages are on the topic, and the producer does not learn it.
    pub fn swallow_answer_to_produce(&self) {
        assert!(self.state.kafka, "the proxy does not stand before Kafka");
        *self.state.swallow.lock().unwrap() = Some(Lost::ToProduce);
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
    let (mut generation, mut mode) = (state.generation.subscribe(), state.mode.subscribe());
    let lost = async { mode.wait_for(|mode| *mode == Mode::Lose).await.map(drop) };
    drop(client.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let passing = async {
        let server = state.server.lock().unwrap().clone();
        let Ok(server) = TcpStream::connect(server).await else { return };
        drop(server.set_nodelay(true));
        let (mut from_server, mut to_server) = server.into_split();
        let exchange = Mutex::new(Exchange::default());
        let asked = |bytes: &[u8]| {
            if state.kafka {
                exchange.lock().unwrap().asked(bytes);
            }
            true
        };
        let answered = |bytes: &[u8]| {
            let to_produce = state.kafka && exchange.lock().unwrap().answers_produce(bytes);
            !state.is_to_be_lost(bytes, to_produce)
        };
        // Whichever ends first takes the connection down with it.
        tokio::select! {
            () = pump(&mut from_client, &mut to_server, &state, asked) => {}
            () = pump(&mut from_server, &mut to_client, &state, answered) => {}
        }
    };
    tokio::select! {
        biased;
        _ = generation.changed() => {}
        Ok(()) = lost => {
            let mut nowhere = tokio::io::sink();
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut nowhere) => {}
                _ = generation.changed() => {}
            }
        }
        () = passing => {}
    }
}

async fn pump(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, state: &State, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut mode = state.mode.subscribe();
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if mode.wait_for(|mode| *mode != Mode::Hold).await.is_err() {
            return;
        }
        if !pass(&bytes[..read]) {
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

impl State {
    fn is_to_be_lost(&self, answer: &[u8], to_produce: bool) -> bool {
        let mut swallow = self.swallow.lock().unwrap();
        let found = match &*swallow {
            Some(Lost::With(part)) => answer.windows(part.len()).any(|window| window == part),
            Some(Lost::ToProduce) => to_produce,
            None => false,
        };
        if found {
            *swallow = None;
        }
        found
    }
}
