use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::Signer;

/// Publishes keys, as an issuer of tokens does, and counts how often it is asked for them.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    answer: Arc<Mutex<(u16, Vec<u8>)>>,
    asked: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Issuer {
    pub async fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new((200, Vec::new()))), Arc::<AtomicU64>::default());
        let server = tokio::spawn(serve(listener, Arc::clone(&answer), Arc::clone(&asked)));
        let issuer = Self { url, answer, asked, server };
        issuer.publish(signers);
        issuer
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on these are its keys.
    pub fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        self.answer(200, json!({"keys": keys}).to_string());
    }

    /// From now on this is what it answers.
    pub fn answer(&self, status: u16, body: impl Into<Vec<u8>>) {
        *self.answer.lock().unwrap() = (status, body.into());
    }

    #[must_use]
    pub fn times_asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, answer: Arc<Mutex<(u16, Vec<u8>)>>, asked: Arc<AtomicU64>) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        // A request for keys is small, and comes in one piece.
        let Ok(read @ 1..) = client.read(&mut request).await else { continue };
        asked.fetch_add(1, Ordering::SeqCst);
        let (mut status, body) = answer.lock().unwrap().clone();
        if request[..read].starts_with(b"GET /elsewhere ") {
            status = 200;
        }
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
        let head = head + "location: /elsewhere\r\n\r\n";
        // Whoever refuses the answer has closed the connection.
        drop(client.write_all(&[head.as_bytes(), &body].concat()).await);
    }
}
