//! Where an issuer puts what its tokens are good for. Issuers differ: in the claim, in whether it is a text or a list,
//! in what stands before a scope, and in whether they give scopes or roles. docs/issuers.md has the settings for each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{contract::customer::CustomerRef, runtime::config::Reader};

#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// Of each of these: a text with blanks, or a list.
    pub scope_claims: Vec<String>,
    /// Where it is set only what begins with it counts, without it.
    pub scope_prefix: Option<String>,
    /// The scopes that a role stands for. It stands where scopes stand.
    pub role_scopes: BTreeMap<String, BTreeSet<String>>,
    pub customer_claim: String,
    /// What a token without a customer needs to see and change the orders of all.
    pub unrestricted_scope: Option<Arc<str>>,
}

impl Mapping {
    pub(super) fn read(s: &mut Reader) -> Self {
        let is_pair =
            |pair: &String| pair.split_once('=').is_some_and(|(role, scope)| !role.is_empty() && is_word(scope));
        let pairs = s.optional("auth.role_scopes", |pairs: &Vec<String>| {
            let rule = "must be a list of ROLE=SCOPE with commas, like clerk=orders:read,clerk=orders:write";
            if pairs.iter().all(is_pair) { Ok(()) } else { Err(rule.into()) }
        });
        let mut role_scopes = BTreeMap::<_, BTreeSet<_>>::new();
        for (role, scope) in pairs.iter().flatten().filter_map(|pair| pair.split_once('=')) {
            role_scopes.entry(role.to_owned()).or_default().insert(scope.to_owned());
        }
        let word = |word: &String| if is_word(word) { Ok(()) } else { Err("must be one word".into()) };
        Self {
            scope_claims: s.get("auth.scope_claims"),
            scope_prefix: s.optional("auth.scope_prefix", word),
            role_scopes,
            customer_claim: s.get("auth.customer_claim"),
            unrestricted_scope: s.optional("auth.unrestricted_scope", |one: &String| is_scope(one)).map(Into::into),
        }
    }

    /// For whoever has a token and wants to know what it is good for before it is sent.
    pub(super) fn scopes(&self) -> Value {
        json!({ "claims": self.scope_claims, "prefix": self.scope_prefix, "roles": self.role_scopes })
    }

    pub(super) fn scopes_of(&self, claims: &Value) -> Result<BTreeSet<String>, &'static str> {
        let mut scopes = BTreeSet::new();
        for claim in self.scope_claims.iter().filter_map(|name| find(claims, name)) {
            match claim {
                Value::String(text) => text.split(' ').for_each(|one| self.add(one, &mut scopes)),
                Value::Array(all) => {
                    for one in all {
                        self.add(one.as_str().ok_or("its list of scopes has something else")?, &mut scopes);
                    }
                }
                _ => return Err("its scopes are neither a text nor a list"),
            }
        }
        Ok(scopes)
    }

    fn add(&self, given: &str, scopes: &mut BTreeSet<String>) {
        let name = self.scope_prefix.as_deref().map_or(Some(given), |prefix| given.strip_prefix(prefix));
        // A role's name is the issuer's own, and has no prefix.
        if let Some(of_role) = self.role_scopes.get(given) {
            scopes.extend(of_role.iter().cloned());
        } else if let Some(name) = name.filter(|name| is_word(name)) {
            scopes.insert(name.to_owned());
        }
    }

    /// Compared as it stands there: nothing is trimmed of what the issuer says.
    pub(super) fn customer_of(&self, claims: &Value) -> Result<Option<CustomerRef>, &'static str> {
        let Some(claim) = find(claims, &self.customer_claim) else { return Ok(None) };
        let known = claim.as_str().and_then(|text| CustomerRef::parse(text).filter(|known| known.as_str() == text));
        known.map(Some).ok_or("its customer is none")
    }
}

/// What OAuth calls a scope (RFC 6749, 3.3): the answer that names a missing one has room for no other.
fn is_scope(text: &str) -> Result<(), String> {
    let rule = "must be one word of visible ASCII characters, without quotes and backslashes";
    let is_one = is_word(text) && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
    if is_one { Ok(()) } else { Err(rule.into()) }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// The claim of that name, which may have dots of its own (`https://shop.example/customer`), or else a member of
/// a member (`realm_access.roles`).
fn find<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |inner, name| inner.get(name)))
}
