import type { Approval } from '../api/types'
import { duration } from '../ui/format'

/** How long a question is open still. */
export function endsIn(expires: string, now: number): string {
  const left = (Date.parse(expires) - now) / 1000
  return left > 0 ? `${duration(left)} left` : 'over'
}

/** Who may answer, in words. */
export function whoMay({ roles, users }: Pick<Approval, 'roles' | 'users'>): string {
  const named = [...roles.map((role) => `any ${role}`), ...users]
  return named.length > 0 ? `for ${named.join(', ')}` : 'for anybody who may approve'
}
