declare module "*.css" {
  const text: string;
  export default text;
}
/** Set by the build: a hash of the sources. */
declare const __VERSION__: string;
