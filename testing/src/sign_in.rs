//! An issuer of OpenID Connect that signs everybody in who comes with a PKCE challenge, and gives the token to
//! whoever has the verifier.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Url;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub const CLIENT_ID: &str = "pages";

type Parameters = BTreeMap<String, String>;

#[derive(Debug)]
pub struct SignIn {
    pub issuer: String,
    desk: Arc<Mutex<Desk>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Desk {
    token: String,
    /// What the request for the code said, until the code is used.
    begun: Option<Parameters>,
    /// What it asked for last.
    scope: String,
    granted: u64,
}

impl SignIn {
    /// Whoever signs in gets this token.
    pub async fn start(token: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let desk = Arc::new(Mutex::new(Desk { token, begun: None, scope: String::new(), granted: 0 }));
        let (own, at) = (issuer.clone(), Arc::clone(&desk));
        let server = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                drop(tokio::spawn(answer(client, own.clone(), Arc::clone(&at))));
            }
        });
        Self { issuer, desk, server }
    }

    /// How often a code was exchanged for the token.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.desk.lock().unwrap().granted
    }

    /// The scopes that were asked for last.
    #[must_use]
    pub fn scope(&self) -> String {
        self.desk.lock().unwrap().scope.clone()
    }
}

impl Drop for SignIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(mut client: TcpStream, issuer: String, desk: Arc<Mutex<Desk>>) {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    let (head, body) = loop {
        let Ok(read @ 1..) = client.read(&mut part).await else { return };
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let target = head.split(' ').nth(1).unwrap_or_default();
    let url = Url::parse(&issuer).unwrap().join(target).unwrap();
    let (status, headers, body) = match url.path() {
        "/.well-known/openid-configuration" => {
            let told = json!({ "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token") });
            (200, String::new(), told.to_string())
        }
        "/authorize" => match desk.lock().unwrap().begin(parameters(&url)) {
            Some(back) => (302, format!("location: {back}\r\n"), String::new()),
            None => (400, String::new(), String::new()),
        },
        "/token" => {
            let form = Url::parse(&format!("{issuer}/?{body}")).unwrap();
            match desk.lock().unwrap().grant(&parameters(&form)) {
                Some(token) => (200, String::new(), json!({ "access_token": token }).to_string()),
                None => (400, String::new(), json!({ "error": "invalid_grant" }).to_string()),
            }
        }
        _ => (404, String::new(), String::new()),
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}", body.len());
    let head = head + "content-type: application/json\r\naccess-control-allow-origin: *\r\n\r\n";
    drop(client.write_all((head + &body).as_bytes()).await);
}

fn parameters(url: &Url) -> Parameters {
    url.query_pairs().into_owned().collect()
}

impl Desk {
    fn begin(&mut self, asked: Parameters) -> Option<Url> {
        let is = |name: &str, value: &str| asked.get(name).is_some_and(|given| given == value);
        let is_right = is("response_type", "code") && is("client_id", CLIENT_ID) && is("code_challenge_method", "S256");
        let mut back = Url::parse(asked.get("redirect_uri").filter(|_| is_right)?).ok()?;
        back.query_pairs_mut().append_pair("code", "the-code").append_pair("state", asked.get("state")?);
        self.scope = asked.get("scope").cloned().unwrap_or_default();
        self.begun = Some(asked);
        Some(back)
    }

    fn grant(&mut self, asked: &Parameters) -> Option<String> {
        let begun = self.begun.take()?;
        let verifier = digest(&SHA256, asked.get("code_verifier")?.as_bytes());
        let is_right = BASE64_URL_SAFE_NO_PAD.encode(verifier) == begun["code_challenge"]
            && asked.get("code")? == "the-code"
            && asked.get("grant_type")? == "authorization_code"
            && ["client_id", "redirect_uri"].iter().all(|name| asked.get(*name) == begun.get(*name));
        is_right.then(|| {
            self.granted += 1;
            self.token.clone()
        })
    }
}
