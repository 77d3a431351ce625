const here = typeof document === 'undefined' ? 'http://localhost/' : document.baseURI

/** Where the dashboard is served: `/`, or a prefix such as `/nexus/` (the server writes it into `<base href>`). */
export const place: string = new URL('.', here).pathname

/** The address of an API path below that place. */
export function address(path: string): string {
  const { pathname, search } = new URL(path.replace(/^\//, ''), here)
  return pathname + search
}
