declare module "*.tex" {
  /** MathML, made when the page was built. */
  const mathml: string;
  export default mathml;
}
