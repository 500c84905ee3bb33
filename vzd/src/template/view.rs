//! A template as the API shows it.

use super::{Store, TemplateError, manifest::Meta};
use vz_api::wire::TemplateInfo;
use vz_types::TemplateName;

impl Store {
    /// What is known of one template; an error where something about it is wrong.
    pub(super) fn info(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError> {
        match self.current(name) {
            Ok((_, meta)) => Ok(built(name, meta)),
            Err(TemplateError::NotBuilt { .. }) => match self.recipes.find(name)? {
                Some((recipe, _)) => Ok(TemplateInfo {
                    description: Some(recipe.description),
                    init: Some(recipe.init.word().into()),
                    arch: recipe.arch.map(|a| a.to_string()),
                    ..blank(name, "recipe")
                }),
                None => Err(self.absent(name)),
            },
            Err(e) => Err(e),
        }
    }
}

/// One that cannot be used, and why.
pub fn broken(name: &TemplateName, e: &TemplateError) -> TemplateInfo {
    TemplateInfo { problem: Some(e.to_string()), ..blank(name, "broken") }
}

fn built(name: &TemplateName, meta: Meta) -> TemplateInfo {
    TemplateInfo {
        distribution: meta.distribution,
        init: Some(meta.init),
        arch: Some(meta.arch),
        digest: Some(meta.digest),
        size: Some(meta.size),
        files: Some(meta.files),
        built_at: Some(meta.built_at),
        description: Some(meta.description),
        packages: meta.packages,
        origin: Some(meta.origin.word().into()),
        source: Some(meta.source),
        archive: meta.archive,
        ..blank(name, "ready")
    }
}

fn blank(name: &TemplateName, status: &str) -> TemplateInfo {
    TemplateInfo {
        name: name.to_string(),
        status: status.into(),
        distribution: None,
        init: None,
        arch: None,
        digest: None,
        size: None,
        files: None,
        built_at: None,
        description: None,
        used_by: Vec::new(),
        packages: Vec::new(),
        problem: None,
        origin: None,
        source: None,
        archive: None,
    }
}
