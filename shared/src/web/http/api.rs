//! The operations of one service: its routes, and the document that describes them.

use std::collections::BTreeMap;

use actix_web::{
    Resource,
    web::{self, ServiceConfig},
};

use super::{Channel, docs::Docs, measure, only, operation::Operation};

/// Made of sections; then it is served.
#[derive(Clone, Debug)]
pub struct Api {
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) sections: Vec<Section>,
    channel: Option<Channel>,
}

/// Operations that belong together in the document.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) operations: Vec<Operation>,
}

impl Api {
    #[must_use]
    pub fn new(title: &'static str, description: &'static str) -> Self {
        Self { title, description, sections: Vec::new(), channel: None }
    }

    #[must_use]
    pub fn section(
        mut self,
        name: &'static str,
        description: &'static str,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Self {
        self.sections.push(Section { name, description, operations: operations.into_iter().collect() });
        self
    }

    /// The messages of the service, which have a document of their own.
    #[must_use]
    pub fn channel(self, channel: Channel) -> Self {
        Self { channel: Some(channel), ..self }
    }

    /// The AsyncAPI document, where there are messages.
    #[must_use]
    pub fn messages(&self) -> Option<serde_json::Value> {
        self.channel.as_ref().map(|channel| channel.document(self.title))
    }

    /// The routes of the operations and, without a token, of their documents and their page.
    pub fn routes(self) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
        let docs = Docs::of(&self.document(), self.messages().as_ref());
        for operation in self.sections.iter().flat_map(|section| &section.operations) {
            measure::expect(&operation.method, operation.path, operation.statuses());
        }
        move |routes| {
            for (path, operations) in self.by_path() {
                let mut methods: Vec<_> = operations.iter().map(|operation| operation.method.as_str()).collect();
                methods.sort_unstable();
                let resource = web::resource(path).default_service(only(methods.join(", ")));
                routes.service(
                    operations
                        .iter()
                        .fold(resource, |resource: Resource, operation| resource.route((operation.route)())),
                );
            }
            docs.add_to(routes);
        }
    }

    /// Of the operations: method and path.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let operations = self.sections.iter().flat_map(|section| &section.operations);
        operations.map(|operation| format!("{} {}", operation.method, operation.path)).collect()
    }

    /// A path comes before those that have a parameter in its place and would match it too: `{` sorts
    /// behind every letter.
    fn by_path(&self) -> BTreeMap<&'static str, Vec<&Operation>> {
        let mut paths = BTreeMap::<_, Vec<_>>::new();
        for operation in self.sections.iter().flat_map(|section| &section.operations) {
            paths.entry(operation.path).or_default().push(operation);
        }
        paths
    }
}
