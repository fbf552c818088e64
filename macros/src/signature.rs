//! What a function that is called from another node may look like, and what to write where it does not.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    FnArg, GenericArgument, Lifetime, Pat, PatType, PathArguments, ReturnType, Safety, Signature, Type, TypeImplTrait,
    TypeReference, visit::Visit,
};

use crate::errors::Errors;

/// One argument, which becomes a field of the generated message.
pub(crate) struct Arg {
    pub(crate) ident: Ident,
    pub(crate) ty: TokenStream,
}

/// Which kind of function is read; errors speak of it.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Method,
    Constructor,
    Task,
}

impl Role {
    fn subject(self) -> &'static str {
        match self {
            Role::Method => "a remote method",
            Role::Constructor => "`new`",
            Role::Task => "a task",
        }
    }

    /// The other way out, where there is one.
    fn or_local(self) -> &'static str {
        match self {
            Role::Method => ", or mark the method `#[local]`",
            Role::Constructor | Role::Task => "",
        }
    }

    /// What to do where `async` cannot be; none where it can.
    fn instead_of_async(self) -> Option<&'static str> {
        match self {
            Role::Method => None,
            Role::Constructor => Some("make it a plain `fn`, and do what has to wait in `Actor::started`"),
            Role::Task => Some("make it a plain `fn`; it may block, for it has a thread to itself while it runs"),
        }
    }
}

/// Refuses the qualifiers and generics that cannot be called from afar.
pub(crate) fn check_qualifiers(sig: &Signature, role: Role, errors: &mut Errors) {
    let (subject, or_local) = (role.subject(), role.or_local());
    if let (Some(asyncness), Some(instead)) = (&sig.asyncness, role.instead_of_async()) {
        errors.refuse(asyncness, format!("{subject} cannot be `async`: {instead}{or_local}"));
    }
    if let Safety::Unsafe(unsafety) = &sig.safety {
        errors.refuse(
            unsafety,
            format!("{subject} cannot be `unsafe`, since its caller is on another node: check its conditions inside{or_local}"),
        );
    }
    if let Some(abi) = &sig.abi {
        errors.refuse(abi, format!("{subject} has Rust's own calling convention: remove `extern`{or_local}"));
    }
    if !sig.generics.params.is_empty() {
        errors.refuse(&sig.generics, format!("{subject} cannot be generic: write out the types{or_local}"));
    } else if let Some(clause) = &sig.generics.where_clause {
        errors.refuse(clause, format!("{subject} cannot have a `where` clause: remove it{or_local}"));
    }
}

/// The arguments after the receiver. Those refused are left out.
pub(crate) fn read_args(sig: &Signature, role: Role, errors: &mut Errors) -> Vec<Arg> {
    let typed = sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(arg) => Some(arg),
        FnArg::Receiver(_) => None,
    });
    typed.filter_map(|arg| read_arg(arg, role, errors)).collect()
}

fn read_arg(arg: &PatType, role: Role, errors: &mut Errors) -> Option<Arg> {
    let or_local = role.or_local();
    for attr in &arg.attrs {
        errors.refuse(attr, format!("an argument that is sent cannot have attributes: remove this one{or_local}"));
    }
    check_owned(&arg.ty, Place::Argument, or_local, errors);
    match &*arg.pat {
        Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => {
            Some(Arg { ident: pat.ident.clone(), ty: arg.ty.to_token_stream() })
        }
        pattern => {
            errors.refuse(
                pattern,
                format!("an argument that is sent needs a plain name: write `name: Type` and take it apart in the body{or_local}"),
            );
            None
        }
    }
}

/// The type of the reply, `()` where none is written.
pub(crate) fn read_reply(sig: &Signature, role: Role, errors: &mut Errors) -> Type {
    match &sig.output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, ty) => {
            check_owned(ty, Place::Reply, role.or_local(), errors);
            (**ty).clone()
        }
    }
}

/// Whether `ty` is written `Result<..>`, under whatever path. An alias of another name is not seen through.
pub(crate) fn is_result(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Result"),
        Type::Group(group) => is_result(&group.elem),
        Type::Paren(paren) => is_result(&paren.elem),
        _ => false,
    }
}

/// The type of the items, where `ty` is written `ReplyItems<T>`, under whatever path. An alias of another name is not seen
/// through.
pub(crate) fn items_of<'a>(ty: &'a Type, errors: &mut Errors) -> Option<&'a Type> {
    let path = match ty {
        Type::Path(path) => path,
        Type::Group(group) => return items_of(&group.elem, errors),
        Type::Paren(paren) => return items_of(&paren.elem, errors),
        _ => return None,
    };
    let last = path.path.segments.last().filter(|last| last.ident == "ReplyItems")?;
    if let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let (1, Some(GenericArgument::Type(item))) = (arguments.args.len(), arguments.args.first())
    {
        return Some(item);
    }
    errors.refuse(ty, "a stream says what it is made of: write the type of its items, `ReplyItems<T>`");
    None
}

/// `tokens` with `Self` written out, for use outside the `impl` block.
pub(crate) fn replace_self(tokens: TokenStream, actor: &TokenStream) -> TokenStream {
    let replaced = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(ident) if ident == "Self" => actor.clone(),
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), replace_self(group.stream(), actor));
            inner.set_span(group.span());
            TokenTree::Group(inner).into()
        }
        other => other.into(),
    });
    replaced.collect()
}

/// Refuses a reply type that is borrowed or has no name.
pub(crate) fn check_reply_type(ty: &Type, errors: &mut Errors) {
    check_owned(ty, Place::Reply, "", errors);
}

#[derive(Clone, Copy)]
enum Place {
    Argument,
    Reply,
}

/// Looks at every type inside `ty`, too.
fn check_owned(ty: &Type, place: Place, or_local: &'static str, errors: &mut Errors) {
    OwnedCheck { place, or_local, errors }.visit_type(ty);
}

struct OwnedCheck<'a> {
    place: Place,
    or_local: &'static str,
    errors: &'a mut Errors,
}

impl OwnedCheck<'_> {
    /// "an argument .. cannot be a reference: take" and "a reply .. cannot be a reference: return"
    fn words(&self) -> (&'static str, &'static str) {
        match self.place {
            Place::Argument => ("an argument", "take"),
            Place::Reply => ("a reply", "return"),
        }
    }
}

impl<'ast> Visit<'ast> for OwnedCheck<'_> {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let ((what, verb), or_local) = (self.words(), self.or_local);
        let instead = match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "`String` instead of `&str`",
            Type::Slice(_) => "a `Vec<_>` instead of a slice",
            _ => "the value itself",
        };
        self.errors.refuse(
            reference,
            format!("{what} is sent to another node and cannot be a reference: {verb} {instead}{or_local}"),
        );
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if lifetime.ident != "static" {
            let ((what, verb), or_local) = (self.words(), self.or_local);
            self.errors.refuse(
                lifetime,
                format!("{what} is sent to another node and cannot borrow: {verb} an owned type{or_local}"),
            );
        }
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
        let ((what, verb), or_local) = (self.words(), self.or_local);
        self.errors.refuse(
            ty,
            format!("{what} that is sent needs a named type: {verb} that instead of `impl Trait`{or_local}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn errors_of(source: &str) -> Vec<String> {
        let sig: Signature = syn::parse_str(source).expect("a signature");
        let mut errors = Errors::default();
        check_qualifiers(&sig, Role::Task, &mut errors);
        read_args(&sig, Role::Task, &mut errors);
        read_reply(&sig, Role::Task, &mut errors);
        errors.finish().err().into_iter().flatten().map(|error| error.to_string()).collect()
    }

    #[test]
    fn owned_types_pass() {
        assert!(
            errors_of("fn f(a: u8, mut b: Vec<(String, [u8; 4])>, _c: Cow<'static, str>) -> Result<(), E>").is_empty()
        );
        assert!(errors_of("const fn f()").is_empty());
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (source, text) in [
            ("async fn f()", "a task cannot be `async`: make it a plain `fn`"),
            ("unsafe fn f()", "check its conditions inside"),
            ("extern \"C\" fn f()", "remove `extern`"),
            ("fn f<T>()", "a task cannot be generic: write out the types"),
            ("fn f() where String: Clone", "remove it"),
            ("fn f(a: &str)", "take `String` instead of `&str`"),
            ("fn f(a: &[u8])", "take a `Vec<_>` instead of a slice"),
            ("fn f(a: Option<&Config>)", "take the value itself"),
            ("fn f(a: Cow<'_, str>)", "take an owned type"),
            ("fn f(a: impl Into<u8>)", "instead of `impl Trait`"),
            ("fn f() -> &'static str", "return `String` instead of `&str`"),
            ("fn f() -> impl Iterator<Item = u8>", "a reply that is sent needs a named type"),
            ("fn f((a, b): (u8, u8))", "write `name: Type`"),
            ("fn f(_: u8)", "write `name: Type`"),
            ("fn f(ref a: u8)", "write `name: Type`"),
            ("fn f(#[cfg(test)] a: u8)", "remove this one"),
        ] {
            let errors = errors_of(source);
            assert_eq!(errors.len(), 1, "{source}: {errors:?}");
            assert!(errors[0].contains(text), "{source}: {errors:?}");
        }
    }

    #[test]
    fn several_errors_are_told_at_once() {
        assert_eq!(errors_of("async fn f(a: &str, b: &[u8]) -> &u8").len(), 4);
    }

    #[test]
    fn results_are_known_by_their_last_segment() {
        for (ty, expected) in [("Result<u8, E>", true), ("std::io::Result<u8>", true), ("Option<Result<u8, E>>", false)]
        {
            assert_eq!(is_result(&syn::parse_str(ty).expect("a type")), expected, "{ty}");
        }
    }

    #[test]
    fn streams_are_known_by_their_last_segment_and_name_their_items() {
        for (ty, expected) in [
            ("ReplyItems<u8>", Some("u8")),
            ("mobula::ReplyItems<Result<u8, E>>", Some("Result < u8 , E >")),
            ("(ReplyItems<Self>)", Some("Self")),
            ("Vec<ReplyItems<u8>>", None),
            ("Items<u8>", None),
        ] {
            let (ty, mut errors) = (syn::parse_str(ty).expect("a type"), Errors::default());
            let items = items_of(&ty, &mut errors).map(|item| item.to_token_stream().to_string());
            assert_eq!(items.as_deref(), expected);
            errors.finish().expect("no error");
        }
        for ty in ["ReplyItems", "ReplyItems<>", "ReplyItems<u8, u8>", "ReplyItems<'static>"] {
            let (ty, mut errors) = (syn::parse_str(ty).expect("a type"), Errors::default());
            assert!(items_of(&ty, &mut errors).is_none());
            let error = errors.finish().expect_err("no type of items").to_string();
            assert!(error.contains("write the type of its items"), "{error}");
        }
    }

    #[test]
    fn self_is_replaced_at_any_depth() {
        let replaced = replace_self(quote!(Vec<(Self, [Self; 2])>), &quote!(Counter));
        assert_eq!(replaced.to_string(), quote!(Vec<(Counter, [Counter; 2])>).to_string());
    }
}
