use std::{net::SocketAddr, time::Duration};

use actix_web::http::Uri;

use crate::config::{Bind, Reader};

/// What one server of this process lets in. The time limits that nobody needs to change are at
/// [`super::connection`] and [`crate::json`].
#[derive(Clone, Debug)]
pub struct Settings {
    pub bind: SocketAddr,
    /// Open at the same time; further ones are answered 503 and closed.
    pub max_connections: u32,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    pub rate: Rate,
    /// The pages whose scripts may read answers: none but these.
    pub allowed_origins: Vec<String>,
}

/// How many requests one caller may make; `per_second` 0 is any number.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub per_second: u32,
    /// How many of them at once, after a pause.
    pub burst: u32,
}

impl Settings {
    /// Those of the API, `http.*`.
    pub fn read(settings: &mut Reader) -> Self {
        Self {
            bind: settings.get::<Bind>("http.bind").0,
            max_connections: settings.within("http.max_connections", 1..=100_000, "from 1 to 100000"),
            keep_alive: settings.within("http.keep_alive", Duration::from_secs(1).., "1s or longer"),
            rate: Rate {
                per_second: settings.within("http.rate_limit.per_second", 0..=1_000_000, "from 0 to 1000000"),
                burst: settings.within("http.rate_limit.burst", 1..=1_000_000, "from 1 to 1000000"),
            },
            allowed_origins: settings
                .optional("http.cors.allowed_origins", |origins: &Vec<String>| are_origins(origins))
                .unwrap_or_default(),
        }
    }

    /// Those of the management port: probes and scrapes are few, and closed to everybody else.
    #[must_use]
    pub fn management(bind: SocketAddr) -> Self {
        Self {
            bind,
            max_connections: 100,
            keep_alive: Duration::from_secs(75),
            rate: Rate { per_second: 0, burst: 1 },
            allowed_origins: Vec::new(),
        }
    }
}

fn are_origins(origins: &[String]) -> Result<(), String> {
    let is_origin = |text: &String| {
        text.parse::<Uri>().is_ok_and(|uri| {
            let named = uri.scheme().zip(uri.authority()).map(|(scheme, host)| format!("{scheme}://{host}"));
            named.as_ref() == Some(text)
        })
    };
    let rule = "must be a list of origins with commas, like https://shop.example";
    if origins.iter().all(is_origin) { Ok(()) } else { Err(rule.into()) }
}
