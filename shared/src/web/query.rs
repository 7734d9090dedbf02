//! Reading a query string: every parameter is known, stands there once, and parses.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::{
    contract::message::timestamp,
    web::problem::{Problem, Violation},
};

/// How many entries a page of any list has.
pub const PAGE_SIZE: std::ops::RangeInclusive<i64> = 1..=200;
pub const DEFAULT_PAGE_SIZE: i64 = 50;

/// The parameters of a request that have not been asked for yet.
#[derive(Debug)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// `known` lists the parameters of the route.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown, given twice or not UTF-8.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, Problem> {
        let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(text)
            .map_err(|_| Problem::bad_request("The query string cannot be read."))?;
        let mut found = BTreeMap::new();
        for (name, value) in pairs.into_inner() {
            let Some(known) = known.iter().find(|known| **known == name) else {
                return Err(Problem::bad_request("The query has a parameter that is not known here."));
            };
            if found.insert(name, value).is_some() {
                return Err(Problem::bad_request(format!("The query parameter {known} stands there twice.")));
            }
        }
        Ok(Self(found))
    }

    /// For a route that has no parameters.
    ///
    /// # Errors
    /// 400 for any.
    pub fn none(text: &str) -> Result<(), Problem> {
        Self::parse(text, &[]).map(|_| ())
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// # Errors
    /// 400 saying that the parameter is not `what`, where `parse` finds nothing.
    pub fn get<T>(&mut self, name: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let not = || Problem::bad_request(format!("The query parameter {name} is not {what}."));
        self.text(name).map(|text| parse(&text).ok_or_else(not)).transpose()
    }

    /// The parameter `limit` of a list.
    ///
    /// # Errors
    /// 400 where it is no number, 422 where the number is out of range.
    pub fn limit(&mut self) -> Result<i64, Problem> {
        let number = self.get("limit", "a whole number", |text| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            whole.then(|| text.parse().unwrap_or(i64::MAX))
        })?;
        match number.unwrap_or(DEFAULT_PAGE_SIZE) {
            limit if PAGE_SIZE.contains(&limit) => Ok(limit),
            _ => Err(Problem::unprocessable(vec![Violation::new(
                "/limit",
                format!("This must be from {} to {}.", PAGE_SIZE.start(), PAGE_SIZE.end()),
            )])),
        }
    }

    /// A parameter that is an RFC 3339 time.
    ///
    /// # Errors
    /// 400.
    pub fn time(&mut self, name: &str) -> Result<Option<OffsetDateTime>, Problem> {
        self.get(name, "an RFC 3339 time", timestamp)
    }
}
