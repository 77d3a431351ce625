/** Where the dashboard is served: `/`, or a prefix such as `/nexus/` (the server writes it into `<base href>`). */
export const place: string = new URL('.', document.baseURI).pathname

/** The address of an API path below that place. */
export function address(path: string): string {
  return new URL(path.replace(/^\//, ''), document.baseURI).pathname + (path.includes('?') ? path.slice(path.indexOf('?')) : '')
}
