//! Who calls. With `auth.mode = "disabled"` everybody is the one anonymous caller, who may do everything.

use std::{collections::BTreeSet, future::Ready};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload};

use crate::problem::Problem;

/// A caller whose identity is established; handlers take it as a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub issuer: String,
    pub subject: String,
    /// Set where the caller is a customer, who sees and places the orders of this customer only.
    pub customer_ref: Option<String>,
    /// None: every scope.
    scopes: Option<BTreeSet<String>>,
}

impl Caller {
    /// Whoever calls while authentication is switched off.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { issuer: String::new(), subject: "anonymous".into(), customer_ref: None, scopes: None }
    }

    #[must_use]
    pub fn may(&self, scope: &str) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope))
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        std::future::ready(caller.ok_or_else(|| Problem::internal(anyhow::anyhow!("a route without authentication"))))
    }
}
