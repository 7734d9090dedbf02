//! Poolers: PgBouncer, and one by transaction that is as small as one can be. It has one session of the server, which each
//! client has for a transaction at a time, and no notion of prepared statements.

use std::{process::Command, sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
};

use crate::{Database, database::SERVICE, server::Server, wait_until};

/// That of Debian, with the settings that docs/operations.md gives.
#[derive(Debug)]
pub struct PgBouncer(Server);

impl PgBouncer {
    /// Lends a session by `mode`, and keeps so many statements of a connection prepared, where its version can.
    pub async fn before(database: &Database, mode: &str, statements: u32) -> Self {
        let mut server = Server::beside("pgbouncer");
        let (_, port) = database.address().rsplit_once(':').unwrap();
        server.arguments = [port, SERVICE, mode, &statements.to_string()].map(str::to_owned).into();
        server.start();
        let url = database.url_through(server.port);
        wait_until("PgBouncer answers", Duration::from_secs(30), async || PgConnection::connect(&url).await.is_ok())
            .await;
        Self(server)
    }

    /// Since 1.21.
    #[must_use]
    pub fn keeps_prepared_statements() -> bool {
        let told =
            Command::new("pgbouncer").arg("--version").output().expect("PgBouncer is in the PATH: run make test");
        let told = String::from_utf8(told.stdout).unwrap();
        let minor = told.strip_prefix("PgBouncer 1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        minor.unwrap_or_else(|| panic!("a version of PgBouncer: {told}")) >= 21
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }
}

/// Ends with the test.
#[derive(Debug)]
pub struct Pooler {
    port: u16,
    accepting: JoinHandle<()>,
}

/// The one session, and what the server said when it began.
struct Session {
    server: TcpStream,
    greeting: Vec<u8>,
}

type Shared = Arc<Mutex<Option<Session>>>;

impl Pooler {
    /// In front of `server`, `HOST:PORT`, which asks for no password.
    pub async fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (server, shared) = (server.to_owned(), Shared::default());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, shared) = (server.clone(), Arc::clone(&shared));
                // A client that goes away is no concern of the others.
                tokio::spawn(async move { drop(serve(client, &server, &shared).await) });
            }
        });
        Self { port, accepting }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut client: TcpStream, server: &str, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let start = loop {
        let length = client.read_u32().await?;
        let mut packet = length.to_be_bytes().to_vec();
        packet.resize(length as usize, 0);
        client.read_exact(&mut packet[4..]).await?;
        match packet[4..8] {
            // A wish for TLS.
            [4, 210, 22, 47] => client.write_all(b"N").await?,
            _ => break packet,
        }
    };
    {
        let mut session = shared.lock().await;
        let greeting = &mut begun(&mut session, server, &start).await?.greeting;
        client.write_all(greeting).await?;
    }
    loop {
        let first = message(&mut client).await?;
        let mut session = shared.lock().await;
        let done = transaction(&mut client, &mut begun(&mut session, server, &start).await?.server, first).await;
        if done.is_err() {
            // Rolled back with the session.
            *session = None;
            return done;
        }
    }
}

async fn begun<'a>(session: &'a mut Option<Session>, server: &str, start: &[u8]) -> std::io::Result<&'a mut Session> {
    if session.is_none() {
        let mut server = TcpStream::connect(server).await?;
        server.set_nodelay(true)?;
        server.write_all(start).await?;
        let mut greeting = Vec::new();
        loop {
            let said = message(&mut server).await?;
            greeting.extend_from_slice(&said);
            if said[0] == b'Z' {
                break;
            }
        }
        *session = Some(Session { server, greeting });
    }
    Ok(session.as_mut().expect("it was just made"))
}

/// Passes messages on until the server has answered all and is in no transaction.
async fn transaction(client: &mut TcpStream, server: &mut TcpStream, first: Vec<u8>) -> std::io::Result<()> {
    // How many answers end with a ReadyForQuery that has not come yet.
    let mut owed = 0_u32;
    let mut next = Some(first);
    let (mut at_server, mut at_client) = ([0], [0]);
    loop {
        if let Some(asked) = next.take() {
            owed += u32::from([b'Q', b'S'].contains(&asked[0]));
            server.write_all(&asked).await?;
        }
        // A look takes nothing away: none is read in part.
        tokio::select! {
            seen = server.peek(&mut at_server) => {
                seen?;
                let said = message(server).await?;
                client.write_all(&said).await?;
                if said[0] == b'Z' {
                    owed = owed.saturating_sub(1);
                    if said[5] == b'I' && owed == 0 {
                        return Ok(());
                    }
                }
            }
            seen = client.peek(&mut at_client) => {
                seen?;
                next = Some(message(client).await?);
            }
        }
    }
}

async fn message(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]);
    message.resize(length as usize + 1, 0);
    from.read_exact(&mut message[5..]).await?;
    Ok(message)
}
