//! The schema hash: two nodes that disagree on it refuse a message instead of misreading it.
//!
//! It is FNV-1a 64 over the tokens of fields and reply, joined by single spaces, so that layout, comments, and the
//! compiler's version do not change it. It sees text, not meaning: renaming a type changes it, and changing what is
//! behind a type's name or alias does not.
//!
//! ```text
//! struct Increment { by: i64 }, reply i64      { by : i64 , } - > i64
//! struct Pair(u8, Vec<u8>), reply ()           ( u8 , Vec < u8 > , ) - > ( )
//! struct Get, reply i64                        ; - > i64
//! ```

use proc_macro2::{Delimiter, Literal, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Fields, Type};

use crate::signature::Arg;

/// The hash, as a literal, of a generated struct with `args` as its fields.
pub(crate) fn of_args(args: &[Arg], reply: &TokenStream) -> Literal {
    let fields = args.iter().map(|Arg { ident, ty }| quote!(#ident: #ty,));
    let fields = if args.is_empty() { quote!(;) } else { quote!({ #(#fields)* }) };
    literal(quote!(#fields -> #reply))
}

/// The hash, as a literal, of a message that the user wrote. serde's attributes count: they change the bytes.
pub(crate) fn of_definition(input: &DeriveInput, reply: &Type) -> Literal {
    let attrs = serde_attrs(&input.attrs);
    let body = match &input.data {
        Data::Struct(data) => fields(&data.fields),
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| {
                let (attrs, ident, fields) = (serde_attrs(&variant.attrs), &variant.ident, fields(&variant.fields));
                quote!(#attrs #ident #fields,)
            });
            quote!(enum { #(#variants)* })
        }
        Data::Union(data) => data.fields.to_token_stream(),
    };
    literal(quote!(#attrs #body -> #reply))
}

fn fields(fields: &Fields) -> TokenStream {
    let each = fields.iter().map(|field| {
        let (attrs, name, ty) = (serde_attrs(&field.attrs), field.ident.iter(), &field.ty);
        quote!(#attrs #(#name:)* #ty,)
    });
    match fields {
        Fields::Named(_) if fields.is_empty() => quote!(;),
        Fields::Named(_) => quote!({ #(#each)* }),
        Fields::Unnamed(_) => quote!(( #(#each)* )),
        Fields::Unit => quote!(;),
    }
}

fn serde_attrs(attrs: &[Attribute]) -> TokenStream {
    attrs.iter().filter(|attr| attr.path().is_ident("serde")).map(ToTokens::to_token_stream).collect()
}

fn literal(tokens: TokenStream) -> Literal {
    Literal::u64_suffixed(fnv1a_64(&canonical_text(tokens)))
}

/// The same for every layout of the same tokens; `TokenStream::to_string` promises no such thing.
fn canonical_text(tokens: TokenStream) -> String {
    let mut words = Vec::new();
    push_words(tokens, &mut words);
    words.join(" ")
}

fn push_words(tokens: TokenStream, words: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    // Invisible: put around a type by the macro_rules that it came through.
                    Delimiter::None => {
                        push_words(group.stream(), words);
                        continue;
                    }
                };
                words.push(open.to_owned());
                push_words(group.stream(), words);
                words.push(close.to_owned());
            }
            // rustfmt adds a comma when it breaks `Map<Key, Value>` over lines.
            TokenTree::Punct(comma) if comma.as_char() == ',' && tokens.peek().is_some_and(closes_angle) => {}
            other => words.push(other.to_string()),
        }
    }
}

fn closes_angle(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == '>')
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): the same function as `mobula_core::schema_hash`.
fn fnv1a_64(text: &str) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    text.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_source(source: &str, reply: &str) -> String {
        let input = syn::parse_str(source).expect("a definition");
        of_definition(&input, &syn::parse_str(reply).expect("a type")).to_string()
    }

    #[test]
    fn fnv1a_known_answers() {
        assert_eq!(fnv1a_64(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a_64("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn layout_comments_and_visibility_do_not_count() {
        let plain = of_source("struct A { by: HashMap<String, u64>, n: u8 }", "i64");
        let other = of_source(
            "/// Words.\n #[derive(Debug)] pub struct B {\n /// More.\n pub by: HashMap<\nString,\nu64,\n>, pub(crate) n: u8,}",
            "i64",
        );
        assert_eq!(plain, other);
    }

    #[test]
    fn names_types_order_reply_and_serde_attributes_count() {
        let hashes = [
            of_source("struct A { by: i64 }", "i64"),
            of_source("struct A { with: i64 }", "i64"),
            of_source("struct A { by: i32 }", "i64"),
            of_source("struct A { by: i64 }", "i32"),
            of_source("struct A { by: i64, to: i64 }", "i64"),
            of_source("struct A { to: i64, by: i64 }", "i64"),
            of_source("struct A { #[serde(skip)] by: i64 }", "i64"),
            of_source("#[serde(transparent)] struct A { by: i64 }", "i64"),
            of_source("struct A(i64);", "i64"),
            of_source("struct A;", "i64"),
            of_source("enum A { X }", "i64"),
            of_source("enum A { X, Y(i64) }", "i64"),
        ];
        let mut distinct = hashes.to_vec();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), hashes.len());
    }

    #[test]
    fn a_generated_message_equals_the_same_struct_written_by_hand() {
        let args = [Arg { ident: syn::parse_quote!(by), ty: quote!(Vec<(u8, i64)>) }];
        assert_eq!(of_args(&args, &quote!(i64)).to_string(), of_source("struct A { by: Vec<(u8, i64)> }", "i64"));
        assert_eq!(of_args(&[], &quote!(())).to_string(), of_source("struct A;", "()"));
    }

    #[test]
    fn canonical_text_is_words_with_single_spaces() {
        assert_eq!(
            canonical_text(quote!({ by: Vec<Vec<u8>>, } -> (i64,))),
            "{ by : Vec < Vec < u8 > > , } - > ( i64 , )"
        );
    }
}
