/** An intervention as the plain dict that the kernel builds it from. */

export interface Spec {
  readonly type: string;
  readonly [field: string]: unknown;
}
