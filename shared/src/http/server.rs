//! Listening is apart from serving: the address is known, and logged, before the first request.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    middleware::from_fn,
    web::{self, ServiceConfig},
};
use anyhow::Context;

use super::{around, no_such_path, panics};
use crate::{
    auth::{Authentication, authenticate},
    health::Component,
    lifecycle::Shutdown,
};

/// Connections waiting to be accepted.
const BACKLOG: i32 = 1024;
/// A client that does not finish its request head within this time is cut off.
const REQUEST_HEAD_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    pub workers: usize,
    /// How long requests under way may take once the drain has begun.
    pub grace: Duration,
}

/// # Errors
/// The address cannot be had.
pub fn listen(name: &str, address: SocketAddr, workers: usize, grace: Duration) -> anyhow::Result<Server> {
    let bind = || -> std::io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    let listener = bind().with_context(|| format!("cannot listen on {address} ({name})"))?;
    tracing::info!(server = name, "server.address" = %listener.local_addr()?, "listening");
    Ok(Server { listener, workers, grace })
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
        page: Component,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + 'static
    where
        F: Fn(&mut ServiceConfig) + Clone + Send + 'static,
    {
        let state = (web::Data::new(shutdown.clone()), web::Data::new(authentication));
        let app = move || {
            App::new()
                .app_data(state.0.clone())
                .app_data(state.1.clone())
                .configure(routes.clone())
                .default_service(web::to(no_such_path))
                .wrap(from_fn(authenticate))
                // The last one is the outermost: what is inside may fail or panic, it is answered for.
                .wrap(from_fn(panics::caught))
                .wrap(from_fn(around))
        };
        let server = HttpServer::new(app)
            .workers(self.workers)
            .client_request_timeout(REQUEST_HEAD_WITHIN)
            .shutdown_timeout(self.grace.as_secs().max(1))
            .shutdown_signal(async move { shutdown.drain_begun().await })
            .listen(self.listener)
            .map(HttpServer::run);
        async move {
            let server = server?;
            page.working();
            Ok(server.await?)
        }
    }
}
