use reqwest::Url;

use crate::runtime::config::Reader;

/// `pages.*`
#[derive(Clone, Debug)]
pub struct Settings {
    pub enabled: bool,
    /// Where the other service's pages are, as a browser reaches them.
    pub peer_url: Option<String>,
    /// Who signs people in. Without it they paste a token.
    pub oidc: Option<Oidc>,
}

/// An issuer of OpenID Connect that takes the pages as a public client.
#[derive(Clone, Debug)]
pub struct Oidc {
    pub issuer: String,
    pub client_id: String,
}

impl Settings {
    pub fn read(s: &mut Reader) -> Self {
        let peer_url = s.optional("pages.peer_url", |url: &String| web_address(url).map(|_| ()));
        let issuer = s.optional("pages.oidc.issuer", |url: &String| web_address(url).map(|_| ()));
        let client_id = s.optional("pages.oidc.client_id", |_: &String| Ok(()));
        let oidc = match (issuer, client_id) {
            (Some(issuer), Some(client_id)) => Some(Oidc { issuer, client_id }),
            (None, None) => None,
            _ => {
                s.mistake("pages.oidc.issuer, pages.oidc.client_id", "both of them or none");
                None
            }
        };
        Self { enabled: s.get("pages.enabled"), peer_url, oidc }
    }

    /// Scheme, host and port of the other service's pages. None where there are no pages here: then nothing is shown
    /// together either.
    #[must_use]
    pub fn peer_origin(&self) -> Option<String> {
        self.peer_url.as_deref().filter(|_| self.enabled).map(origin)
    }
}

impl Oidc {
    /// Scheme, host and port of the issuer.
    #[must_use]
    pub fn origin(&self) -> String {
        origin(&self.issuer)
    }
}

/// An address that is wrong was noted when it was read.
fn origin(url: &str) -> String {
    web_address(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

fn web_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    url.ok_or_else(|| "must be a URL with https or http, like https://shop.example".into())
}
