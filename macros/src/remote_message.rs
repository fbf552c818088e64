//! `#[derive(RemoteMessage)]`: names a message and its reply. serde's derives stay with the user.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, LitStr, Token, Type,
    parse::{Parse, ParseStream},
};

use crate::{
    errors::Errors,
    names::{check_wire_name, wire_name},
    schema,
    signature::check_reply_type,
};

/// # Errors
/// All that is wrong with the definition and its attributes, as one.
pub(crate) fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    let input: DeriveInput = syn::parse2(input)?;
    let mut errors = Errors::default();
    if !input.generics.params.is_empty() {
        let message =
            "a message cannot be generic, since its name stands for one type on every node: write out the types";
        errors.refuse(&input.generics, message);
    }
    if let Data::Union(data) = &input.data {
        errors.refuse(data.union_token, "a union cannot be sent: use an enum");
    }
    let reply = reply(&input.attrs, &mut errors);
    check_reply_type(&reply, &mut errors);
    let explicit_name = explicit_name(&input.attrs, &mut errors);
    errors.finish()?;

    let ident = &input.ident;
    let name = wire_name(explicit_name.as_ref(), ident, "");
    let schema = schema::of_definition(&input, &reply);
    Ok(quote! {
        impl ::mobula::actix::Message for #ident {
            type Result = #reply;
        }

        impl ::mobula::RemoteMessage for #ident {
            const NAME: &'static str = #name;
            const SCHEMA: u64 = #schema;
            type Reply = #reply;
        }
    })
}

fn reply(attrs: &[Attribute], errors: &mut Errors) -> Type {
    let found = only(attrs, "rtype", errors).and_then(|attr| match attr.parse_args::<ReplyType>() {
        Ok(ReplyType(ty)) => Some(ty),
        Err(cause) => {
            let message = format!(
                "{cause}; write the reply's type as `#[rtype(result = \"i64\")]`, or leave `rtype` out for `()`"
            );
            errors.push(syn::Error::new_spanned(attr, message));
            None
        }
    });
    found.unwrap_or_else(|| syn::parse_quote!(()))
}

fn explicit_name(attrs: &[Attribute], errors: &mut Errors) -> Option<LitStr> {
    let mut name = None;
    let parsed = only(attrs, "remote", errors)?.parse_nested_meta(|meta| {
        if !meta.path.is_ident("name") {
            return Err(meta.error("unknown option: write `#[remote(name = \"...\")]`"));
        }
        name = Some(check_wire_name(meta.value()?.parse()?)?);
        Ok(())
    });
    if let Err(error) = parsed {
        errors.push(error);
    }
    name
}

/// The attribute called `name`, of which there may be one.
fn only<'a>(attrs: &'a [Attribute], name: &str, errors: &mut Errors) -> Option<&'a Attribute> {
    let mut found = attrs.iter().filter(|attr| attr.path().is_ident(name));
    let first = found.next();
    for repeated in found {
        errors.refuse(repeated, format!("`{name}` is here a second time: keep one"));
    }
    first
}

/// `result = "i64"`, `result = i64`, or `i64`.
struct ReplyType(Type);

impl Parse for ReplyType {
    fn parse(input: ParseStream<'_>) -> syn::Result<ReplyType> {
        syn::custom_keyword!(result);
        // Without `=` it is a reply type forgotten, not a type called `result`.
        if input.peek(result) && !input.peek2(Token![::]) {
            input.parse::<result>()?;
            input.parse::<Token![=]>()?;
        }
        if input.peek(LitStr) { input.parse::<LitStr>()?.parse().map(ReplyType) } else { input.parse().map(ReplyType) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansion(source: &str) -> String {
        expand(syn::parse_str(source).expect("tokens")).expect("a message").to_string()
    }

    fn errors_of(source: &str) -> Vec<String> {
        let errors = expand(syn::parse_str(source).expect("tokens")).expect_err("misuse");
        errors.into_iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn every_spelling_of_the_reply() {
        for (attr, reply) in [
            ("#[rtype(result = \"Vec<i64>\")]", "Vec < i64 >"),
            ("#[rtype(result = Vec<i64>)]", "Vec < i64 >"),
            ("#[rtype(Vec<i64>)]", "Vec < i64 >"),
            ("#[rtype(\"Vec<i64>\")]", "Vec < i64 >"),
            ("", "()"),
        ] {
            let tokens = expansion(&format!("{attr} struct Increment {{ by: i64 }}"));
            assert!(tokens.contains(&format!("type Result = {reply} ;")), "{attr}: {tokens}");
            assert!(tokens.contains(&format!("type Reply = {reply} ;")), "{attr}: {tokens}");
        }
    }

    #[test]
    fn the_name_between_nodes() {
        assert!(expansion("struct Increment;").contains("\"CARGO_PKG_NAME\") , \"::\" , \"Increment\")"));
        let named = expansion("#[remote(name = \"shop::Inc\")] enum Increment { One }");
        assert!(named.contains("const NAME : & 'static str = \"shop::Inc\""), "{named}");
    }

    #[test]
    fn misuse_is_told() {
        for (source, text) in [
            ("struct M<T>(T);", "a message cannot be generic"),
            ("struct M<'a>(&'a str);", "a message cannot be generic"),
            ("union M { a: u8, b: u8 }", "use an enum"),
            ("#[rtype] struct M;", "write the reply's type as `#[rtype(result = \"i64\")]`"),
            ("#[rtype()] struct M;", "write the reply's type as"),
            ("#[rtype(result)] struct M;", "write the reply's type as"),
            ("#[rtype(u8)] #[rtype(u8)] struct M;", "keep one"),
            ("#[rtype(result = \"\")] struct M;", "write the reply's type as"),
            ("#[rtype(result = \"&'static str\")] struct M;", "return `String` instead of `&str`"),
            ("#[remote(nmae = \"x\")] struct M;", "unknown option"),
            ("#[remote(name = \"\")] struct M;", "cannot be empty"),
        ] {
            let errors = errors_of(source);
            assert_eq!(errors.len(), 1, "{source}: {errors:?}");
            assert!(errors[0].contains(text), "{source}: {errors:?}");
        }
        assert_eq!(errors_of("#[rtype()] #[remote(x)] struct M<T>(T);").len(), 3);
    }
}
