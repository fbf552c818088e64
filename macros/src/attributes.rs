//! What is taken over from the user's attributes to generated items, and how options are read.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, LitStr, parse::Parser};

use crate::{errors::Errors, names::check_wire_name};

/// The attributes of a function that its generated companions carry too.
pub(crate) struct Carried {
    /// `#[cfg(..)]`: without the function there is nothing to call.
    pub(crate) cfgs: Vec<Attribute>,
    /// Doc comments.
    pub(crate) docs: Vec<Attribute>,
}

impl Carried {
    pub(crate) fn of(attrs: &[Attribute]) -> Carried {
        let named = |name| attrs.iter().filter(|attr| attr.path().is_ident(name)).cloned().collect();
        Carried { cfgs: named("cfg"), docs: named("doc") }
    }

    /// `summary`, then the user's own words below it.
    pub(crate) fn docs_after(&self, summary: &str) -> TokenStream {
        let (gap, docs) = (self.docs.first().map(|_| quote!(#[doc = ""])), &self.docs);
        quote!(#[doc = #summary] #gap #(#docs)*)
    }

    /// The user's own words, then `addition` below them; `summary` where there are none.
    pub(crate) fn docs_before(&self, addition: &str, summary: &str) -> TokenStream {
        let docs = &self.docs;
        let head = if docs.is_empty() { quote!(#[doc = #summary]) } else { quote!(#(#docs)*) };
        quote!(#head #[doc = ""] #[doc = #addition])
    }
}

/// Refuses a `#[cfg]` that would remove the user's item and leave what was generated for it.
pub(crate) fn refuse_cfg(attrs: &[Attribute], place: &str, errors: &mut Errors) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("cfg")) {
        errors.refuse(attr, format!("put `#[cfg(..)]` {place}, so that it also covers what is generated"));
    }
}

/// Options in the parentheses of `#[mobula::actor(..)]` and `#[mobula::task(..)]`.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) manual_actor: bool,
    pub(crate) name: Option<LitStr>,
}

impl Options {
    pub(crate) fn parse_actor(tokens: TokenStream) -> syn::Result<Options> {
        Options::parse(tokens, true)
    }

    pub(crate) fn parse_task(tokens: TokenStream) -> syn::Result<Options> {
        Options::parse(tokens, false)
    }

    fn parse(tokens: TokenStream, of_actor: bool) -> syn::Result<Options> {
        let mut options = Options::default();
        let parser = syn::meta::parser(|meta| {
            if meta.path.is_ident("name") {
                options.name = Some(check_wire_name(meta.value()?.parse()?)?);
                Ok(())
            } else if of_actor && meta.path.is_ident("manual_actor") {
                options.manual_actor = true;
                Ok(())
            } else if of_actor {
                Err(meta.error("unknown option: write `manual_actor` or `name = \"...\"`"))
            } else {
                Err(meta.error("unknown option: write `name = \"...\"`, or nothing"))
            }
        });
        parser.parse2(tokens)?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_an_actor_and_of_a_task() {
        let options = Options::parse_actor(quote!(manual_actor, name = "shop::Hits")).expect("valid");
        assert!(options.manual_actor);
        assert_eq!(options.name.map(|name| name.value()).as_deref(), Some("shop::Hits"));
        assert!(Options::parse_task(quote!(manual_actor)).is_err());
        assert!(Options::parse_actor(quote!(name = "")).is_err());
        let error = Options::parse_actor(quote!(nmae = "x")).err().expect("refused");
        assert_eq!(error.to_string(), "unknown option: write `manual_actor` or `name = \"...\"`");
    }

    #[test]
    fn docs_stand_before_or_after_the_users() {
        let carried = Carried::of(&[syn::parse_quote!(#[doc = "Adds."]), syn::parse_quote!(#[inline])]);
        assert_eq!(
            carried.docs_after("Ours.").to_string(),
            quote!(#[doc = "Ours."] #[doc = ""] #[doc = "Adds."]).to_string()
        );
        let without = Carried::of(&[]);
        assert_eq!(without.docs_after("Ours.").to_string(), quote!(#[doc = "Ours."]).to_string());
        assert_eq!(
            without.docs_before("More.", "Ours.").to_string(),
            quote!(#[doc = "Ours."] #[doc = ""] #[doc = "More."]).to_string()
        );
    }
}
