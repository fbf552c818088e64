//! How generated items are called in the program, and by which names nodes know types.
//!
//! The name between nodes is `"<package>::<Type>"`. The module path is left out on purpose: moving a type to another
//! module must not make it a stranger to nodes that still run the build before.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::{LitStr, ext::IdentExt};

/// `increment_by` of `Counter` is asked for by `CounterIncrementBy`.
pub(crate) fn message_ident(actor: &Ident, method: &Ident) -> Ident {
    format_ident!("{}{}", actor.unraw(), camel_case(method), span = method.span())
}

/// The methods of `Counter` are found on the trait `CounterRef`.
pub(crate) fn ref_trait_ident(actor: &Ident) -> Ident {
    format_ident!("{}Ref", actor.unraw(), span = actor.span())
}

/// A call of `sum_of_primes` travels as `SumOfPrimesTask`.
pub(crate) fn task_ident(function: &Ident) -> Ident {
    format_ident!("{}Task", camel_case(function), span = function.span())
}

/// The expression for a type's name between nodes: `explicit` if the user gave one, then followed by `suffix`.
pub(crate) fn wire_name(explicit: Option<&LitStr>, ident: &Ident, suffix: &str) -> TokenStream {
    match explicit {
        Some(name) => {
            let name = LitStr::new(&format!("{}{suffix}", name.value()), name.span());
            quote!(#name)
        }
        None => {
            let name = format!("{}{suffix}", ident.unraw());
            quote!(::core::concat!(::core::env!("CARGO_PKG_NAME"), "::", #name))
        }
    }
}

/// # Errors
/// If the name is empty.
pub(crate) fn check_wire_name(name: LitStr) -> syn::Result<LitStr> {
    if name.value().trim().is_empty() {
        return Err(syn::Error::new_spanned(
            name,
            "a name between nodes cannot be empty: write `name = \"package::Type\"`",
        ));
    }
    Ok(name)
}

/// `increment_by` becomes `IncrementBy`, `r#move` becomes `Move`.
pub(crate) fn camel_case(ident: &Ident) -> String {
    let mut camel = String::new();
    for word in ident.unraw().to_string().split('_') {
        let mut letters = word.chars();
        camel.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camel_case_words() {
        for (snake, camel) in
            [("get", "Get"), ("increment_by", "IncrementBy"), ("r#move", "Move"), ("_x2_y", "X2Y"), ("élan", "Élan")]
        {
            let ident: Ident = syn::parse_str(snake).expect("an identifier");
            assert_eq!(camel_case(&ident), camel);
        }
    }

    #[test]
    fn names_between_nodes() {
        let ident = format_ident!("Counter");
        assert_eq!(
            wire_name(None, &ident, "Get").to_string(),
            quote!(::core::concat!(::core::env!("CARGO_PKG_NAME"), "::", "CounterGet")).to_string()
        );
        let explicit: LitStr = syn::parse_quote!("shop::Hits");
        assert_eq!(wire_name(Some(&explicit), &ident, "Get").to_string(), "\"shop::HitsGet\"");
        assert!(check_wire_name(syn::parse_quote!(" ")).is_err());
    }
}
