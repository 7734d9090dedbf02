//! Listening is apart from serving: the address is known, and logged, before the first request.

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_http::{HttpService, KeepAlive, error::DispatchError};
use actix_service::{ServiceFactoryExt, map_config};
use actix_web::{
    App,
    dev::{AppConfig, Server as Actix, fn_service},
    middleware::{Condition, from_fn},
    rt::net::TcpStream,
    web::{self, ServiceConfig},
};
use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::sleep;

use super::{
    PublicUrl, Settings, address, around, authenticate,
    browsers::{self, Browsers},
    closing,
    connection::Connection,
    cors::cors,
    measure::measured,
    no_such_path,
    origin::origin_of,
    panics,
    rate_limit::{self, RateLimit},
    refusal,
    slots::Slots,
};
use crate::{
    runtime::{health::TaskStatus, lifecycle::Shutdown},
    web::auth::Authentication,
};

/// Connections waiting to be accepted.
const BACKLOG: i32 = 1024;
/// Connections that a worker turns away at the same time; more of them wait to be accepted.
const TURNED_AWAY: usize = 128;
/// A connection without a request when the drain begins: one may be on its way, and is answered. Longer than a round
/// trip round the world.
const HEAD_ON_ITS_WAY: Duration = Duration::from_secs(1);
/// Files that a process has open besides the connections of its callers.
const OTHER_FILES: u64 = 200;

/// What a server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// It is measured.
    Api,
    /// What probes and scrapes take is nobody's concern.
    Management,
}

impl Port {
    fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Management => "management",
        }
    }
}

#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    port: Port,
    settings: Settings,
    workers: usize,
    /// How long requests under way may take once the drain has begun.
    grace: Duration,
}

/// # Errors
/// The address cannot be had.
pub fn listen(port: Port, settings: Settings, workers: usize, grace: Duration) -> anyhow::Result<Server> {
    let (address, name) = (settings.bind, port.as_str());
    let bind = || -> std::io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    let listener = bind().with_context(|| format!("cannot listen on {address} ({name})"))?;
    allow_files((most_of_worker(settings.max_connections, workers) * workers) as u64 + OTHER_FILES);
    tracing::info!(server = name, "server.address" = %listener.local_addr()?, "listening");
    Ok(Server { listener, port, settings, workers, grace })
}

/// Connections of a worker, those that are turned away included.
fn most_of_worker(max_connections: u32, workers: usize) -> usize {
    (max_connections as usize).div_ceil(workers) + TURNED_AWAY
}

/// Many systems give a process 1,024 files at first, and more if it asks.
fn allow_files(needed: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let raised =
            Rlimit { current: limit.maximum.map_or(Some(needed), |maximum| Some(maximum.min(needed))), ..limit };
        let enough = raised.current.is_some_and(|current| current >= needed);
        if !enough || setrlimit(Resource::Nofile, raised).is_err() {
            tracing::warn!(needed, limit = raised.current, "too few open files are permitted for http.max_connections");
        }
    }
}

impl Server {
    /// Serves `routes` to whom `authentication` knows until the drain begins, then closes the listener,
    /// lets the requests under way come to their end and returns.
    ///
    /// # Errors
    /// The server cannot be started or ends on its own.
    pub fn serve<F>(
        self,
        routes: F,
        authentication: Authentication,
        shutdown: Shutdown,
        status: TaskStatus,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + 'static
    where
        F: Fn(&mut ServiceConfig) + Clone + Send + 'static,
    {
        let (is_measured, heartbeat) = (self.port == Port::Api, status.clone());
        let Settings { max_connections, max_per_address, keep_alive, rate, .. } = self.settings;
        let Settings { allowed_origins, peer_origin, allowed_headers, allowed_hosts, public_url, .. } = self.settings;
        let public_origin = public_url.as_deref().and_then(origin_of);
        let browsers = web::Data::new(Browsers {
            origins: allowed_origins.iter().cloned().chain(public_origin).collect(),
            hosts: authentication.is_disabled().then_some(allowed_hosts),
        });
        // Whom `browsers` does not know may read what it is told, and no more.
        let readers: Vec<_> = allowed_origins.into_iter().chain(peer_origin).collect();
        let public_url = web::Data::new(PublicUrl(public_url));
        let state = web::Data::new(shutdown.clone());
        let (authentication, limit) = (web::Data::new(authentication), web::Data::new(RateLimit::new(rate)));
        // Read from the outside in, which is from below. `around` makes an answer of whatever comes
        // out of the others, and a browser's question about origins has no token yet.
        let app = move || {
            // This is called once on each worker's thread; the task ends with it.
            drop(actix_web::rt::spawn(heartbeat.clone().beat()));
            App::new()
                .app_data(state.clone())
                .app_data(authentication.clone())
                .app_data(limit.clone())
                .app_data(browsers.clone())
                .app_data(public_url.clone())
                .configure(routes.clone())
                .default_service(web::to(no_such_path))
                .wrap(from_fn(rate_limit::limited))
                .wrap(from_fn(authenticate::authenticate))
                .wrap(from_fn(browsers::guarded))
                .wrap(cors(&readers, &allowed_headers))
                .wrap(from_fn(panics::caught))
                .wrap(from_fn(around))
                .wrap(Condition::new(is_measured, from_fn(measured)))
        };

        let on_its_way = HEAD_ON_ITS_WAY.min(self.grace / 4);
        let slots = Slots::new(max_connections, max_per_address, keep_alive);
        let other_handle = self.listener.try_clone();
        let server = Actix::build()
            .workers(self.workers)
            .max_concurrent_connections(most_of_worker(max_connections, self.workers))
            .shutdown_timeout(self.grace.as_secs().max(1))
            .shutdown_signal(async move {
                shutdown.drain_begun().await;
                if let Ok(listener) = other_handle {
                    closing::make_no_more(listener).await;
                }
            });
        let draining = server.graceful_shutdown_signal();
        let server = server
            .listen("http", self.listener, move || {
                let (slots, draining) = (Arc::clone(&slots), draining.clone());
                let requests = HttpService::build()
                    // These two are the connection's own business.
                    .keep_alive(KeepAlive::Os)
                    .client_request_timeout(Duration::ZERO)
                    .graceful_shutdown_signal(move || {
                        let draining = draining.clone();
                        async move {
                            draining.notified().await;
                            sleep(on_its_way).await;
                        }
                    })
                    .on_connect_ext(|connection: &Connection, data| drop(data.insert(connection.phase())))
                    .h1(map_config(app(), |()| AppConfig::default()));
                fn_service(move |stream: TcpStream| {
                    let caller = stream.peer_addr().ok();
                    let slot = slots.take(caller.map(|caller| address::of_caller(caller.ip())));
                    async move {
                        let Some(slot) = slot else {
                            refusal::turn_away(stream).await;
                            return Err(DispatchError::DisconnectTimeout);
                        };
                        Ok((Connection::new(stream, keep_alive, slot), caller))
                    }
                })
                .and_then(requests)
            })
            .map(|server| server.run());
        async move {
            let server = server?;
            status.ok();
            Ok(server.await?)
        }
    }
}
