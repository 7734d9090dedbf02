//! A collector of traces: takes what is sent to it over OTLP (protobuf over HTTP) and remembers it.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    pub parent_id: String,
    pub name: String,
    /// What sent it, as it came: names and values stand in it in the clear.
    pub resource: String,
}

#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
    heads: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    /// # Panics
    /// No port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let spans = Arc::default();
        let heads = Arc::default();
        let (arriving, heads_arriving) = (Arc::clone(&spans), Arc::clone(&heads));
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&arriving), Arc::clone(&heads_arriving)));
            }
        });
        Self { endpoint, spans, heads, serving }
    }

    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The heads of the requests that have arrived so far, in lower case.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// What has arrived so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut connection: TcpStream, spans: Arc<Mutex<Vec<Span>>>, heads: Arc<Mutex<Vec<String>>>) {
    let mut read = Vec::new();
    // A connection that is closed has nothing more to say.
    while connection.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
        let Some(head) = read.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap().trim();
        let end = head + 4 + length.parse::<usize>().unwrap();
        if read.len() < end {
            continue;
        }
        let body: Vec<u8> = read.drain(..end).skip(head + 4).collect();
        heads.lock().unwrap().push(text);
        spans.lock().unwrap().extend(decode(&body));
        if connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

/// `ExportTraceServiceRequest`: resource spans (1), of which scope spans (2), of which spans (2).
fn decode(request: &[u8]) -> Vec<Span> {
    fields(request, 1).iter().flat_map(|of_one| spans_of(of_one)).collect()
}

/// Resource spans: the resource (1), and what it sent.
fn spans_of(of_one: &[u8]) -> Vec<Span> {
    let resource = String::from_utf8_lossy(&fields(of_one, 1).concat()).into_owned();
    let spans: Vec<_> = fields(of_one, 2).iter().flat_map(|scope| fields(scope, 2)).collect();
    let hex = |bytes: Vec<Vec<u8>>| bytes.concat().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let span = |span: &Vec<u8>| Span {
        trace_id: hex(fields(span, 1)),
        span_id: hex(fields(span, 2)),
        parent_id: hex(fields(span, 4)),
        name: String::from_utf8(fields(span, 5).concat()).unwrap(),
        resource: resource.clone(),
    };
    spans.iter().map(span).collect()
}

/// The values of one field, of the kind that has a length.
fn fields(mut message: &[u8], wanted: u64) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                varint(&mut message);
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)).unwrap(),
            5 => 4,
            other => panic!("no such kind of field: {other}"),
        };
        let (value, rest) = message.split_at(length);
        if tag >> 3 == wanted && tag & 7 == 2 {
            found.push(value.to_vec());
        }
        message = rest;
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().unwrap();
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
