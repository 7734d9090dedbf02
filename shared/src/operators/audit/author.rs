//! Who does something, by whichever way it comes.

use std::os::unix::fs::MetadataExt;

use actix_web::{HttpMessage, HttpRequest};

use crate::{
    contract::text,
    web::{auth::Caller, http::RequestId},
};

/// The longest name: that of a token's `sub`.
const MOST_OF_A_NAME: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    pub actor: String,
    pub via: &'static str,
    pub request_id: Option<String>,
    /// Of the command line: whoever runs it, whatever name was given.
    pub os_user: Option<String>,
}

impl Author {
    /// Who sent a request to the API.
    #[must_use]
    pub fn of_request(request: &HttpRequest, caller: &Caller) -> Self {
        Self { actor: caller.subject.clone(), via: "api", request_id: request_id(request), os_user: None }
    }

    /// Who sent a request to the management port, where it asks for no token.
    #[must_use]
    pub fn of_management(request: &HttpRequest) -> Self {
        let peer = request.peer_addr().map_or_else(|| "unknown".into(), |peer| peer.ip().to_string());
        Self { actor: peer, via: "management", request_id: request_id(request), os_user: None }
    }

    /// Who runs a command: the name given, else that of the environment, else the system's user. A name that cannot
    /// be read by others is no name, wherever it comes from.
    #[must_use]
    pub fn of_command(named: Option<&str>) -> Self {
        let os_user = os_user();
        let of_environment = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
        let mut names = named.map(str::to_owned).into_iter().chain(of_environment);
        let actor = names.find_map(|name| parse_actor(&name));
        let actor = actor.unwrap_or_else(|| os_user.clone());
        Self { actor, via: "command", request_id: None, os_user: Some(os_user) }
    }
}

fn request_id(request: &HttpRequest) -> Option<String> {
    request.extensions().get::<RequestId>().map(ToString::to_string)
}

/// The user that the process runs as, like `1000 (anna)`: no variable of the environment can change it. In a container
/// there is often a number only.
fn os_user() -> String {
    let Ok(own) = std::fs::metadata("/proc/self") else { return "unknown".into() };
    let uid = own.uid().to_string();
    let names = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number == uid).then(|| text::visible(name, MOST_OF_A_NAME)).flatten()
    });
    name.map_or_else(|| uid.clone(), |name| format!("{uid} ({name})"))
}

/// The name of whoever does something: 1 to 255 visible characters.
#[must_use]
pub fn parse_actor(text: &str) -> Option<String> {
    text::visible(text, MOST_OF_A_NAME)
}
