//! What a page of another origin may make its reader's browser do here: nothing that changes anything. And where no
//! token protects the service, it answers to its own names only: whoever can make a name of his own mean this
//! address (DNS rebinding) would be of the same origin.

use std::net::IpAddr;

use actix_web::{
    Error,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{HOST, HeaderMap, ORIGIN},
    },
    middleware::Next,
    web::Data,
};

use super::rate_limit;
use crate::web::problem::Problem;

#[derive(Clone, Debug)]
pub(super) struct Browsers {
    /// Those of the settings, and that of `http.public_url`.
    pub(super) origins: Vec<String>,
    /// Names of this service besides addresses; none where any name is answered.
    pub(super) hosts: Option<Vec<String>>,
}

/// # Errors
/// The handler's own.
pub(super) async fn guarded(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let checked = request.app_data::<Data<Browsers>>().map(|rules| rules.check(request.method(), request.headers()));
    if let Some(Err(problem)) = checked {
        let problem = rate_limit::charge(&request).err().unwrap_or(problem);
        return Ok(request.error_response(problem));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

impl Browsers {
    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        // Without a name it is no browser: HTTP 1.0, as some load balancers probe.
        let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
        if let Some(names) = &self.hosts
            && host.is_some_and(|host| !is_own(host, names))
        {
            let detail = "The name in Host is none of this service: see the setting allowed_hosts of its port.";
            return Err(Problem::forbidden(detail));
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let mut foreign = headers.get(ORIGIN).is_none() && is_cross_site(headers);
        for origin in headers.get_all(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let is_ours = host.is_some_and(|host| is_of(origin, host)) && !is_cross_site(headers);
            foreign |= !is_ours && !self.origins.iter().any(|one| one.eq_ignore_ascii_case(origin));
        }
        if foreign { Err(Problem::forbidden("A page of another origin may not change anything here.")) } else { Ok(()) }
    }
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get_all("sec-fetch-site").any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"))
}

/// Whether the page came from where the request goes to. A proxy may have ended the encryption: of the scheme only
/// the usual port counts.
fn is_of(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let usual = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let bare = |authority: &str| authority.strip_suffix(usual).unwrap_or(authority).to_ascii_lowercase();
    bare(authority) == bare(host)
}

/// An address, `localhost`, a name without a dot, which nobody can own on the internet, or one of the settings.
fn is_own(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || !name.is_empty() && !name.contains('.')
        || name.ends_with(".localhost")
        || names.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn check(method: Method, given: &[(&'static str, &'static str)]) -> bool {
        let rules =
            Browsers { origins: vec!["https://shop.example".into()], hosts: Some(vec!["orders.example".into()]) };
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        rules.check(&method, &headers).is_ok()
    }

    #[test]
    fn a_name_that_others_can_own_is_refused() {
        for good in [
            "127.0.0.1:9080",
            "[::1]:9080",
            "localhost",
            "LOCALHOST:1",
            "a.localhost",
            "order-service:9080",
            "10.1.2.3",
        ] {
            assert!(check(Method::GET, &[("host", good)]), "{good}");
        }
        assert!(check(Method::GET, &[]) && check(Method::GET, &[("host", "Orders.Example.:8080")]));
        for bad in [
            "evil.example",
            "evil.example:9080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "1.2.3.4.5",
            "",
            ":9080",
        ] {
            assert!(!check(Method::GET, &[("host", bad)]), "{bad}");
        }
        let rules = Browsers { origins: Vec::new(), hosts: Some(Vec::new()) };
        let mut unreadable = HeaderMap::new();
        unreadable.insert(HOST, HeaderValue::from_bytes(b"\xe9vil").unwrap());
        assert!(rules.check(&Method::GET, &unreadable).is_err());
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let own = ("host", "orders.example:8080");
        for good in [
            vec![own],
            vec![own, ("sec-fetch-site", "same-origin"), ("origin", "https://orders.example:8080")],
            vec![own, ("sec-fetch-site", "none")],
            vec![own, ("sec-fetch-site", "cross-site"), ("origin", "https://shop.example")],
            vec![("host", "orders.example"), ("origin", "https://orders.example:443")],
        ] {
            assert!(check(Method::POST, &good), "{good:?}");
        }
        for bad in [
            vec![own, ("sec-fetch-site", "cross-site")],
            vec![own, ("sec-fetch-site", "Cross-Site"), ("origin", "https://orders.example:8080")],
            vec![own, ("origin", "null")],
            vec![own, ("origin", "https://evil.example")],
            vec![own, ("origin", "https://orders.example")],
            vec![own, ("origin", "https://shop.example"), ("origin", "https://evil.example")],
            vec![own, ("sec-fetch-site", "same-site"), ("origin", "https://blog.orders.example:8080")],
            vec![("origin", "https://orders.example")],
        ] {
            assert!(check(Method::GET, &bad), "{bad:?}");
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                assert!(!check(method, &bad), "{bad:?}");
            }
        }
    }
}
