//! Clients that cost little, since they share the cores with the service: HTTP/1.1 over kept-alive
//! connections, requests made beforehand, of an answer only what is checked is read.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use order_service::order::OrderRef;
use testing::Service;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};
use uuid::Uuid;

/// Customers that orders are spread over.
pub const CUSTOMERS: u32 = 1000;

/// Enough for any answer to an order of two items.
const ANSWER_LIMIT: usize = 16 * 1024;

pub fn address(service: &Service) -> Result<SocketAddr> {
    let url = service.api();
    url.strip_prefix("http://").and_then(|address| address.parse().ok()).context("the address of the service")
}

/// A request that places an order of two items, with the token of its customer where there are tokens.
pub fn request(number: u32, tokens: &[String]) -> Vec<u8> {
    let customer = number % CUSTOMERS;
    let [first, second] = [Uuid::now_v7(), Uuid::now_v7()];
    let body = format!(
        r#"{{"customerRef":"C-{customer}","orderItems":[{{"productId":"{first}","quantity":1}},{{"productId":"{second}","quantity":2}}]}}"#
    );
    let length = body.len();
    let token = usize::try_from(customer).ok().and_then(|customer| tokens.get(customer));
    let bearer = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    format!(
        "POST /orders HTTP/1.1\r\nhost: bench\r\n{bearer}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    answer: Box<[u8]>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("the service cannot be connected to")?;
        stream.set_nodelay(true).context("nodelay")?;
        Ok(Self { stream, answer: vec![0; ANSWER_LIMIT].into() })
    }

    /// Places an order and returns its number. Whatever is not a 201 is an error.
    pub async fn place(&mut self, request: &[u8]) -> Result<i64> {
        self.stream.write_all(request).await.context("a request cannot be written")?;
        let mut read = 0;
        loop {
            let more = self.stream.read(&mut self.answer[read..]).await.context("an answer cannot be read")?;
            ensure!(more > 0, "the service closed a connection, or the answer is longer than {ANSWER_LIMIT}");
            read += more;
            if let Some(number) = order_number(&self.answer[..read])? {
                return Ok(number);
            }
        }
    }
}

/// None while the answer is not complete.
fn order_number(answer: &[u8]) -> Result<Option<i64>> {
    let answer = std::str::from_utf8(answer).context("the answer is not text")?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.starts_with("HTTP/1.1 201") {
        bail!("an order was not placed: {answer}");
    }
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    if body.len() < length.context("the answer does not tell its length")? {
        return Ok(None);
    }
    let order_ref = body.split_once(r#""orderRef":""#).and_then(|(_, rest)| rest.split_once('"'));
    let order_ref = order_ref.and_then(|(text, _)| OrderRef::parse(text)).context("the answer has no orderRef")?;
    Ok(Some(order_ref.number()))
}

/// Orders placed by clients that each send the next one when the last is answered.
#[derive(Debug)]
pub struct Placed {
    /// Their numbers, as answered.
    pub orders: Vec<i64>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// How long each answer took.
    pub answers: Vec<Duration>,
}

impl Placed {
    pub fn per_second(&self) -> f64 {
        self.orders.len() as f64 / self.seconds
    }
}

pub async fn place_for(duration: Duration, connections: usize, address: SocketAddr) -> Result<Placed> {
    place_with(&[], duration, connections, address).await
}

/// As [`place_for`], each customer with a token.
pub async fn place_with(
    tokens: &[String],
    duration: Duration,
    connections: usize,
    address: SocketAddr,
) -> Result<Placed> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let requests: Vec<_> = (0..CUSTOMERS).map(|number| request(number, tokens)).collect();
    let requests: &'static [Vec<u8>] = requests.leak();
    let mut clients = JoinSet::new();
    let begin = Instant::now();
    for (number, mut connection) in open.into_iter().enumerate() {
        // Each begins elsewhere, so that not all of them order for the same customer.
        let from = number * requests.len() / connections;
        let mut next = requests.iter().cycle().skip(from);
        clients.spawn(async move {
            let (mut orders, mut answers) = (Vec::new(), Vec::new());
            while begin.elapsed() < duration {
                let sent = Instant::now();
                orders.push(connection.place(next.next().context("a cycle has no end")?).await?);
                answers.push(sent.elapsed());
            }
            anyhow::Ok((orders, answers))
        });
    }
    let (mut orders, mut answers) = (Vec::new(), Vec::new());
    while let Some(client) = clients.join_next().await {
        let (mut placed, mut took) = client.context("a client ended")??;
        orders.append(&mut placed);
        answers.append(&mut took);
    }
    Ok(Placed { orders, seconds: begin.elapsed().as_secs_f64(), answers })
}
